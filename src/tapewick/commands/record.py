"""``record``: a venue's raw frames into files that ``replay`` reads; nothing is decoded, nothing stored."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from tapewick.commands.options import Parser, count, flag, option, setting, settings_of
from tapewick.commands.output import Progress, configure_logs, note, plural, write
from tapewick.errors import ConfigError, SourceError
from tapewick.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tapewick.net.inbox import Inbox, Wakeup
    from tapewick.net.venue_client import VenueClient
    from tapewick.net.websocket import Feed, LinkChange
    from tapewick.record import Recorder

__all__ = ["EXAMPLES", "options", "run"]

EXAMPLES = (
    "tapewick record binance:BTCUSDT --out ./frames                      # until ^C",
    "tapewick record binance:BTCUSDT binance:ETHUSDT --streams trade --seconds 600",
    "tapewick replay ./frames/spot_btcusdt_*.zst --data ./d              # what was recorded, onto a tape",
)
STREAMS = {
    "trade": "trade",
    "aggTrade": "aggTrade",
    "depth": "depth@100ms",
    "bookTicker": "bookTicker",
    "kline_1m": "kline_1m",
    "miniTicker": "miniTicker",
}
DEPTH_LEVELS, DEPTH_WEIGHT = 1000, 50
SNAPSHOTS = 5  # tries to get a book that is not older than the first recorded change


def options(parser: Parser) -> None:
    """Add the command's arguments to ``parser``."""
    parser.add_argument("instruments", nargs="+", metavar="ID", help="what to record, as venue:symbol")
    option(parser, "--out", "folder for the files", default="./tapewick-frames", metavar="DIR")
    option(parser, "--streams", "among " + ",".join(STREAMS), default="trade,depth,bookTicker", metavar="NAME,…")
    option(parser, "--seconds", "how long; 0 = until interrupted", default="0", type=count, metavar="N")
    setting(parser, "binance.ws_url", "--ws-url", metavar="URL")
    setting(parser, "binance.rest_url", "--rest-url", metavar="URL")
    setting(parser, "record.rotate_s", "--rotate", metavar="SECONDS")
    flag(parser, "--json", "print the outcome as one JSON object")
    flag(parser, "--no-progress", "no progress on stderr")
    setting(parser, "log.level", "--log-level")


def run(args: argparse.Namespace) -> int:
    """Record until the time is up (0) or a signal (130, 143).

    Raises ``ConfigError`` for what cannot be recorded, ``SourceError`` when no frame came in all that time.
    """
    from tapewick.commands.running import run as run_until_signal

    settings = settings_of(args)
    configure_logs(settings.log)
    kinds = [kind.strip() for kind in args.streams.split(",") if kind.strip()]
    for kind in kinds:
        if kind not in STREAMS:
            raise ConfigError(f"no stream {kind!r} to record; choose among {','.join(STREAMS)}")
    wanted: dict[str, list[str]] = {}
    for id in args.instruments:
        venue, colon, symbol = id.partition(":")
        if not (venue and colon and symbol):
            raise ConfigError(f"{id!r} is no instrument: write venue:symbol, for example binance:BTCUSDT")
        wanted.setdefault(venue, []).append(symbol)
    sessions = [_Session(settings, venue, symbols, kinds) for venue, symbols in wanted.items()]
    return run_until_signal(_recorded(settings, sessions, args))


async def _recorded(settings: Settings, sessions: Iterable[_Session], args: argparse.Namespace) -> int:
    """Run the sessions and tell what came of it, also when interrupted; 1 where frames are missing in the files."""
    import asyncio
    from contextlib import suppress

    from tapewick.record import Recorder

    own = settings.record
    recorder = Recorder(args.out, max_bytes=own.max_bytes, rotate_seconds=own.rotate_s, rotate_bytes=own.rotate_bytes)
    bar = Progress("frame", shown=not args.no_progress)
    try:
        async with recorder:
            with suppress(TimeoutError):
                async with asyncio.timeout(args.seconds or None), asyncio.TaskGroup() as group:
                    for session in sessions:
                        group.create_task(session.run(recorder))
                    while True:
                        await asyncio.sleep(0.5)
                        bar.update(recorder.frames)
    finally:
        bar.close()
        _tell(recorder, args)
    if not recorder.frames and not recorder.dropped:
        raise SourceError(f"no frame of {' '.join(args.instruments)} came: check that the venue lists it, or --ws-url")
    return 1 if recorder.dropped else 0


def _tell(recorder: Recorder, args: argparse.Namespace) -> None:
    if args.json:
        outcome = {"frames": recorder.frames, "dropped": recorder.dropped, "folder": str(recorder.folder)}
        write(json.dumps(outcome).encode() + b"\n")
        return
    lost = f", {plural(recorder.dropped, 'frame')} left out" if recorder.dropped else ""
    note(f"{plural(recorder.frames, 'frame')} in {recorder.folder}{lost}")


class _Session:
    """The streams of one venue, and a REST book of each symbol whose changes are recorded."""

    def __init__(self, settings: Settings, venue: str, symbols: list[str], kinds: list[str]) -> None:
        from tapewick.sources._binance_listing import PRODUCTS, addresses, checked

        own = settings.binance
        if venue not in PRODUCTS and not own.ws_url:
            books = ", and --rest-url, where its books come from" if "depth" in kinds and not own.rest_url else ""
            raise ConfigError(f"{venue!r} cannot be recorded: name the address that streams it: --ws-url{books}")
        product = PRODUCTS.get(venue, PRODUCTS["binance"])
        known = product if venue in PRODUCTS else product._replace(rest=(), ws=())
        self._venue, self._kinds = venue, kinds
        self._symbols = [checked(symbol) for symbol in symbols]
        self._product = product
        self._ws = addresses(own.ws_url or None, known.ws)
        self._rest = addresses(own.rest_url or None, known.rest)
        if "depth" in kinds and not self._rest:
            raise ConfigError("a recording of depth begins with books from REST: name its address: --rest-url")
        self._awaited: dict[bytes, str] = {}

    async def run(self, recorder: Recorder) -> None:
        """Record until cancelled; never ends."""
        import asyncio

        from tapewick.net.inbox import Inbox, Wakeup
        from tapewick.net.venue_client import VenueClient

        inbox: Inbox[LinkChange] = Inbox()
        async with asyncio.TaskGroup() as group:
            feeds = self._feeds(inbox, recorder)
            for feed in feeds:
                group.create_task(feed.run())
            books = VenueClient(self._rest) if "depth" in self._kinds else None
            try:
                while True:
                    item = await inbox.get()
                    if isinstance(item, Wakeup):
                        for symbol, first in self._begun(item):
                            assert books is not None
                            group.create_task(self._book(books, recorder, symbol, first))
                    elif getattr(item, "state", "") == "connected":
                        self._await_books()
                    else:
                        note(f"{self._venue}: {item.detail}")
            finally:
                if books is not None:
                    await books.aclose()

    def _feeds(self, inbox: Inbox[LinkChange], recorder: Recorder) -> list[Feed]:
        """One feed for each path the venue serves these streams on."""
        from tapewick.net.websocket import Feed

        paths: dict[str, list[str]] = {}
        for kind in self._kinds:
            streams = [f"{symbol.lower()}@{STREAMS[kind]}" for symbol in self._symbols]
            paths.setdefault(self._product.tiers.get(kind, ""), []).extend(streams)
        return [
            Feed([f"{base}{tier}/stream" for base in self._ws], inbox, streams=streams, tap=recorder.tap(self._venue))
            for tier, streams in paths.items()
        ]

    def _await_books(self) -> None:
        """From the next change of each book on, one is wanted from REST: after every connect."""
        if "depth" in self._kinds:
            self._awaited = {f'{{"stream":"{symbol.lower()}@depth'.encode(): symbol for symbol in self._symbols}

    def _begun(self, wakeup: Wakeup) -> list[tuple[str, bytes]]:
        """Symbols whose first change has come, and that frame."""
        found: list[tuple[str, bytes]] = []
        for frame in wakeup.frames if self._awaited else ():
            heads = [head for head in self._awaited if frame.startswith(head)]
            found += ((self._awaited.pop(head), frame) for head in heads)
        return found

    async def _book(self, client: VenueClient, recorder: Recorder, symbol: str, first: bytes) -> None:
        """Record a REST book that is not older than the first recorded change, if the venue gives one."""
        import asyncio

        import msgspec

        from tapewick.net.venue_client import Priority

        params: Mapping[str, str | int] = {"symbol": symbol, "limit": DEPTH_LEVELS}
        try:
            begin = msgspec.json.decode(first)["data"]["U"]
            for _ in range(SNAPSHOTS):
                body = await client.get(
                    f"{self._product.root}/depth", msgspec.Raw, params, weight=DEPTH_WEIGHT, priority=Priority.BOOK
                )
                if msgspec.json.decode(body)["lastUpdateId"] >= begin - 1:
                    recorder.snapshot(self._venue, symbol, bytes(body))
                    return
                await asyncio.sleep(1.0)
            note(f"{self._venue}:{symbol}: the venue's book lags behind its changes; none was recorded")
        except (SourceError, KeyError, TypeError, msgspec.DecodeError) as error:
            note(f"{self._venue}:{symbol}: no book from REST was recorded: {error}")
