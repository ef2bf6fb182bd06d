"""One recorded file: which format, which market, and its lines as decoded parts.

Two formats are told apart by the first line. *Recorder lines* are ``<receive ns> <frame JSON>``.
*Capture lines* hold a whole session: connects, sent messages, HTTP answers and received
frames, stamped in decimal seconds. Every line is counted once, under its kind.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from tapewick.engine import Decoder, Group
from tapewick.engine.tape import TOLERANCE
from tapewick.errors import BadPayload
from tapewick.model import TradeBatch
from tapewick.sources._files import BLOCK, Blocks

__all__ = ["Part", "Recording", "VENUES"]

_MARKETS = ("binance", "binance-usdm", "binance-coinm")
VENUES = (*_MARKETS, "sim")

_RECORDER = re.compile(rb"\d{18,19} [\[{]")
_RECEIVED = re.compile(rb"(\d{1,12})(?:\.(\d{1,18}))?: (.*)", re.DOTALL)
_SESSION = re.compile(rb"(\w+://\S+) (<->|<-|->) (\d{1,12}(?:\.\d+)?)(?=: |$)")
_CONFIGURATION = b"configuration: "
_SESSION_KINDS = {b"<->": "connect", b"<-": "sent", b"->": "http"}
_EXPECTED = (
    "expected recorder lines '<receive time ns> {frame}' or capture lines "
    "'<seconds>: {frame}', '<url> <-> <seconds>', plain or as .gz or .zst"
)
_NAMES = {
    "spot": "binance",
    "usdm": "binance-usdm", "um": "binance-usdm", "futures": "binance-usdm",
    "coinm": "binance-coinm", "cm": "binance-coinm", "delivery": "binance-coinm",
}  # fmt: skip
# A recorder names a file of any other venue `<venue>-<kind>_<symbol>_…`.
_OTHER_VENUE = re.compile(rf"(.+?)-(?:{'|'.join(_NAMES)})_")
# The futures test network serves both kinds under one domain, so the COIN-M prefix decides first.
_HOSTS = (
    (re.compile(rb"://(dstream|dapi)\."), "binance-coinm"),
    (re.compile(rb"://(fstream|fapi)\.|binancefuture\."), "binance-usdm"),
    (re.compile(rb"://[\w.-]*binance\.(com|us|vision)"), "binance"),
)
# What only one market's frames carry: depth `ps` and `USD_` symbols are COIN-M, depth `pu` and trade `X`
# are any futures market, `M` in trades is spot.
_COINM = re.compile(rb'"ps":"|"s":"[A-Z0-9]+USD_')
_FUTURES = re.compile(rb'"pu":\d|"e":"trade"[^{}]*"X":"')
_SPOT = re.compile(rb'"e":"(?:agg)?[tT]rade"[^{}]*"M":(?:true|false)')


@dataclass(slots=True)
class Part:
    """What one block held: batches with their kind (``trade`` or ``aggTrade``) and counts.

    ``until``: the receive time reached (ns). Every line is in ``trades`` or in one of the counters.
    """

    batches: list[tuple[str, TradeBatch]]
    until: int
    lines: int
    trades: int
    others: Counter[str] = field(default_factory=Counter)
    rejects: Counter[str] = field(default_factory=Counter)


class Recording:
    """One recorded file, read block by block with ``read`` (which blocks: call it in a thread).

    ``venue`` None: taken from the URLs in a capture, else the file's name, else the frames.
    ``start`` is the first receive time (ns), ``fault`` says after the last part what was wrong with
    the end of the file. Raises ``BadPayload`` for a file of no known format, one whose market cannot be
    told, and one whose frames contradict the market named.
    """

    def __init__(self, path: Path, venue: str | None = None, block: int = BLOCK) -> None:
        self.path, self._block = path, block
        self.bytes_total = path.stat().st_size if path.is_file() else 0
        self.fault = ""
        self._blocks: Blocks | None = None
        self._decoder = Decoder()
        self._until = 0
        self._ended = False
        head = self._head()
        first = next((line for line in head.split(b"\n") if line), b"")
        if not first:
            raise BadPayload(f"{path} is empty; {_EXPECTED}")
        self._capture = _RECORDER.match(first) is None
        if self._capture and not _is_capture(first):
            raise BadPayload(f"{path}:1: {first[:40]!r} is no recorded frame; {_EXPECTED}")
        self.venue = _venue(path, head, venue, capture=self._capture)
        self.start = _first_stamp(head) if self._capture else int(first.split(b" ", 1)[0])

    def _head(self) -> bytes:
        blocks = Blocks(self.path, 64 << 10)
        try:
            return blocks.read() or blocks.tail
        finally:
            blocks.close()

    @property
    def bytes_read(self) -> int:
        """Stored bytes consumed so far."""
        return self._blocks.bytes_read if self._blocks is not None else 0

    def read(self) -> Part | None:
        """The next part, None after the last."""
        if self._ended:
            return None
        if self._blocks is None:
            self._blocks = Blocks(self.path, self._block)
            self._until = self.start
        before = self._blocks.lines
        try:
            if block := self._blocks.read():
                return self._decode(block, self._blocks.lines - before)
        except BadPayload as error:  # an endless line: what came before it still counts
            self.fault = str(error)
        self._ended = True
        self.close()
        return self._last(self._blocks)

    def _last(self, blocks: Blocks) -> Part | None:
        """The last line of a file that does not end with a newline, if it is whole."""
        place = f"{self.path}:{blocks.lines + 1}"
        if blocks.fault:
            self.fault = f"{place}: {blocks.fault}; everything before it was read, fetch the file again"
        if not blocks.tail:
            return None
        if not blocks.fault and _whole(blocks.tail):
            return self._decode(blocks.tail + b"\n", 1)
        if not blocks.fault:
            self.fault = f"{place}: the last line is cut short; everything before it was read"
        return Part([], self._until, 1, 0, rejects=Counter(truncated=1))

    def close(self) -> None:
        """Release the file."""
        if self._blocks is not None:
            self._blocks.close()

    def _decode(self, block: bytes, lines: int) -> Part:
        part = Part([], self._until, lines, 0)
        if self._capture:
            frames, stamps = _received(block, part)
            if stamps:
                self._until = max(self._until, stamps[-1])
            if self.venue is None:
                part.others.update(_unknown_kind(frame) for frame in frames)
                part.until = self._until
                return part
            decoded = self._decoder.frames(frames, np.array(stamps, np.int64))
        else:
            decoded = self._decoder.lines(block)
            self._until = max(self._until, decoded.last_recv)
        part.others.update(decoded.others)
        part.rejects.update(decoded.rejects)
        for group in decoded.groups:
            if len(group.voids):
                part.others["void"] += len(group.voids)
            batch = self._batch(group)
            # Each trade against its own receive time: against the block's, the block's size would decide.
            timely = batch.ts_event <= batch.ts_recv + TOLERANCE
            if not timely.all():
                part.rejects["bad_time"] += int((~timely).sum())
                batch = batch.select(np.flatnonzero(timely))
            part.trades += len(batch)
            if len(batch) or batch.covers:
                part.batches.append((group.kind, batch))
        part.until = self._until
        return part

    def _batch(self, group: Group) -> TradeBatch:
        return TradeBatch(
            instrument=f"{self.venue}:{group.symbol}",
            trade_id=group.trade_id,
            first_id=group.first_id,
            count=group.count,
            ts_event=group.ts_event,
            # Receive times never go back in a sound file: one that lies ahead of what follows it is wrong.
            ts_recv=np.minimum(group.ts_recv, self._until),
            price=group.price,
            size=group.size,
            side=group.side,
            price_scale=group.price_scale,
            size_scale=group.size_scale,
            covers=tuple((void, void) for void in group.voids.tolist()) or None,
            source="replay",
        )


def _is_capture(line: bytes) -> bool:
    return bool(_RECEIVED.match(line) or _SESSION.match(line)) or line.startswith(_CONFIGURATION)


def _stamp(seconds: bytes, fraction: bytes | None) -> int:
    """Decimal seconds as ns, exactly; digits below a ns are dropped."""
    return int(seconds) * 1_000_000_000 + int((fraction or b"")[:9].ljust(9, b"0"))


def _first_stamp(head: bytes) -> int:
    for line in head.split(b"\n"):
        if (match := _RECEIVED.match(line)) is not None:
            return _stamp(match[1], match[2])
        if (match := _SESSION.match(line)) is not None:
            return _stamp(*match[3].partition(b".")[::2])
    return 0


def _received(block: bytes, part: Part) -> tuple[list[bytes], list[int]]:
    """The received frames of capture lines and their stamps (ns); all other lines are counted."""
    frames: list[bytes] = []
    stamps: list[int] = []
    for line in block[:-1].split(b"\n"):
        if (match := _RECEIVED.fullmatch(line)) is not None:
            stamps.append(_stamp(match[1], match[2]))
            frames.append(match[3])
        elif (match := _SESSION.match(line)) is not None:
            part.others[_SESSION_KINDS[match[2]]] += 1
        elif not line.strip():
            part.others["blank"] += 1
        elif line.startswith(_CONFIGURATION):
            part.others["configuration"] += 1
        else:
            part.rejects["malformed"] += 1
    return frames, stamps


def _unknown_kind(frame: bytes) -> str:
    """What to count a frame of a venue we do not know as."""
    try:
        body = msgspec.json.decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "unknown venue frame: malformed"
    kind = None
    if isinstance(body, dict):
        kind = body.get("type") or body.get("event") or body.get("e")
    elif isinstance(body, list) and len(body) > 1:
        kind = body[-2]
    return f"unknown venue frame: {kind[:40] if isinstance(kind, str) else 'other'}"


def _whole(line: bytes) -> bool:
    """Whether a line without its newline is nevertheless complete."""
    _, _, body = line.partition(b" ")
    if not _is_capture(line) and _RECORDER.match(line) is None:
        return False
    if (match := _SESSION.match(line)) is not None and match[2] == b"<->":
        return True
    try:
        msgspec.json.decode(body if match is None else line[match.end() + 2 :])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True


def _venue(path: Path, head: bytes, option: str | None, *, capture: bool) -> str | None:
    """The venue whose frames a file holds; None for a capture of a venue we do not know."""
    named = option
    if named is None and capture and (urls := re.findall(rb"^\w+://\S+", head, re.MULTILINE)):
        return next((venue for pattern, venue in _HOSTS if pattern.search(urls[0])), None)
    if named is None:
        named = _named(path)
    seen = _hint(head)
    if named is None:
        if seen is None and not capture:
            raise BadPayload(
                f"{path}: cannot tell which market it was recorded on; name it: --venue {'|'.join(VENUES)}"
            )
        return "binance-usdm" if seen == "futures" else seen
    kind = "binance" if named == "sim" else named  # the simulated venue speaks the spot market's language
    agrees = seen is None or kind == seen or (seen == "futures" and kind != "binance")
    if kind in _MARKETS and not agrees:
        said = "the option" if option is not None else "the file's name"
        raise BadPayload(f"{path}: {said} says {named}, but its frames are of {seen}; correct --venue")
    return named


def _named(path: Path) -> str | None:
    """The venue a file's name tells, None if it tells none. Raises ``BadPayload`` for one we do not know."""
    name = path.name.lower()
    other = _OTHER_VENUE.match(name)
    if other is not None and other[1] != "binance":
        if other[1] in VENUES:
            return other[1]
        raise BadPayload(
            f"{path}: its name says venue {other[1]!r}, which is none we know; say whose frames they are: "
            f"--venue {'|'.join(VENUES)}"
        )
    return next((_NAMES[token] for token in re.split(r"[^a-z0-9]+", name) if token in _NAMES), None)


def _hint(head: bytes) -> str | None:
    """What the frames themselves tell of their market; ``futures`` means one of the two."""
    if _COINM.search(head):
        return "binance-coinm"
    if _FUTURES.search(head):
        return "futures"
    return "binance" if _SPOT.search(head) else None
