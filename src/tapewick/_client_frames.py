"""What a stream hands its reader, and the frames of the server it is made from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import msgspec

from tapewick._client_rows import Row, decode

__all__ = ["Frame", "Item", "Notice", "Rows", "Skip", "StreamGap", "frames", "offset_of"]


@dataclass(slots=True, repr=False)
class Rows:
    """Rows of one channel, at least one unless a snapshot is empty; iterate over it, or take ``rows``.

    ``kind``: ``history`` (asked for by ``start``), ``snapshot`` (replaces what is held), ``event`` (durable, each
    once) or ``update`` (provisional: the open candle, quotes, books; superseded by what follows).
    ``change`` says of candle events ``closed``, ``final`` or ``revised``, ``reason`` why they were revised.
    ``position``: the token to resume behind these rows, empty where they have none. ``late``: these trades came
    after their time. ``ts``: publish time in ms, 0 for history. ``raw``: the rows as the server wrote them.
    """

    channel: str
    kind: Literal["history", "snapshot", "event", "update"]
    position: str = ""
    raw: list[msgspec.Raw] = field(default_factory=list)
    change: str = ""
    reason: str = ""
    late: bool = False
    ts: int = 0
    _rows: list[Row] | None = None

    def __repr__(self) -> str:
        told = " ".join(filter(None, (self.channel, self.kind, self.change, self.reason, self.position)))
        return f"<{len(self)} rows of {told}{' late' if self.late else ''}>"

    @property
    def rows(self) -> list[Row]:
        """``Trade``, ``Candle``, ``Quote``, ``Ticker`` or ``Book`` by the channel's kind, else JSON objects.

        Raises ``BadPayload`` for rows of another shape.
        """
        if self._rows is None:
            kind = self.channel.partition("@")[0]
            self._rows = [decode(kind, row) for row in self.raw]
        return self._rows

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.raw)


@dataclass(frozen=True, slots=True)
class StreamGap:
    """The stream could not go on exactly: records from ``first`` to ``last`` may be missing; a snapshot follows.

    Read the range you show again (``Client.candles``, ``Client.trades``), then go on. ``reason``: ``epoch`` (another
    tape), ``future`` (the tape is shorter than the position), ``history_expired``, ``not_stored`` (1s candles),
    ``missing`` (the server skipped them).
    """

    channel: str
    first: str
    last: str
    reason: str
    count: int | None = None


@dataclass(frozen=True, slots=True)
class Skip:
    """``count`` late trades from ``first`` to ``position`` that ``backfill="skip"`` keeps out; they count as seen."""

    channel: str
    first: str
    position: str
    count: int


@dataclass(frozen=True, slots=True)
class Notice:
    """News of the stream itself. ``code``: ``disconnected``, ``connected``, ``conflated``, …; ``channel``: or empty."""

    code: str
    channel: str
    detail: str


Item: TypeAlias = Rows | StreamGap | Skip | Notice


class Admitted(msgspec.Struct):
    """A channel the server will send, and whether it could go on where it was asked to."""

    ch: str
    pos: str = ""
    recovered: bool = False


class Refused(msgspec.Struct):
    """A channel the server will not send, and why."""

    ch: str = ""
    code: int = 0
    msg: str = ""


class Frame(msgspec.Struct):
    """Any frame of the server; fields it lacks are empty."""

    type: str
    ch: str = ""
    pos: str | dict[str, str] = ""
    from_: str = msgspec.field(name="from", default="")
    to: str = ""
    kind: str = ""
    reason: str = ""
    late: bool = False
    ts: int = 0
    count: int | None = None
    code: str | int = ""
    msg: str = ""
    dropped: int = 0
    data: list[msgspec.Raw] = []
    channels: list[Admitted] = []
    errors: list[Refused] = []

    @property
    def position(self) -> str:
        """The position of a data frame."""
        return self.pos if isinstance(self.pos, str) else ""


_ONE = msgspec.json.Decoder(Frame)
_MANY = msgspec.json.Decoder(list[Frame])


def frames(text: bytes) -> list[Frame]:
    """The frames of one WebSocket message. Raises ``msgspec.DecodeError`` for anything else."""
    return _MANY.decode(text) if text[:1] == b"[" else [_ONE.decode(text)]


def offset_of(position: str) -> tuple[str, int]:
    """Epoch and offset of a position; the epoch is empty in a bare offset."""
    epoch, _, offset = position.rpartition(":")
    return epoch, int(offset)
