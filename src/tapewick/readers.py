"""Who reads a channel that only knows how things stand: groups that get the same bytes, each reader bounded.

Such a channel has no positions. A new reader gets the present as a snapshot and is with the others at
once; one that fell behind gets it again when its peer has drained.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import NamedTuple

import msgspec

from tapewick import metrics
from tapewick.channel import Channel, Since
from tapewick.crowd import Crowd
from tapewick.outbox import Frame, Outbox

__all__ = ["Admitted", "Readers", "Request"]


class Request(NamedTuple):
    """A wish to follow ``channel``: after ``since``, or from time ``start`` (ns), or from a snapshot
    of the newest ``snapshot`` records (0: none). ``skip``: late trades are only counted. ``levels``: of a book.
    ``include_open``: open candles too. ``pace``: seconds between values that a newer one replaces, 0: every one is
    sent; None: as the hub's limits say. ``ns``: times in rows are texts of ns. ``proto``: frames are protobuf."""

    channel: Channel
    snapshot: int = 0
    since: Since | None = None
    start: int | None = None
    skip: bool = False
    levels: int = 0
    include_open: bool = True
    pace: float | None = None
    ns: bool = False
    proto: bool = False

    @property
    def variant(self) -> tuple[int, bool, float | None, bool, bool]:
        """Readers of one channel that differ in none of these get the same frames."""
        return self.levels, self.include_open, self.pace, self.ns, self.proto


class Admitted(NamedTuple):
    """A request that can be served. ``cursor``: the offset to go on after, None for a snapshot.
    ``recovered``: whether a resume is exact; if not, ``gap`` tells the client what it may have missed."""

    request: Request
    pos: str
    recovered: bool
    cursor: int | None = None
    replayed: int | None = None
    gap: dict[str, object] | None = None


class Readers(ABC):
    """The readers of one channel; a subclass listens to the market and says what to write.

    ``patient``: who reads too slowly is not cut off, it gets the present once it has drained.
    """

    patient = True

    def __init__(self, channel: Channel) -> None:
        self.channel, self.name, self.users = channel, channel.name, 0
        self._loop = asyncio.get_running_loop()
        self._key = msgspec.json.encode(channel.name)
        self._groups: dict[Frame, Crowd] = {}

    @abstractmethod
    async def open(self) -> None:
        """Listen to the market; every user calls this first."""

    @abstractmethod
    def close(self) -> None:
        """Nobody reads any more."""

    @abstractmethod
    async def _present(self) -> bytes:
        """The snapshot's text. What was waiting to be written to the others has been; nothing changes between
        the return of this and the reader's being one of them."""

    async def join(self, outbox: Outbox, admitted: Admitted) -> None:
        """Give a new reader the present and everything after it."""
        await self.rejoin(outbox)

    async def rejoin(self, outbox: Outbox, offset: int = 0) -> None:
        """The present, then everything after it, once the reader has drained."""
        await outbox.drained()
        if self.name not in outbox.channels or outbox.closed:
            return
        text = await self._present()
        if outbox.channels.get(self.name) is self and not outbox.closed:
            outbox.raw(outbox.frame(text))
            self._groups.setdefault(outbox.frame, Crowd()).add(outbox)

    def leave(self, outbox: Outbox) -> None:
        """Send this reader nothing more."""
        group = self._groups.get(outbox.frame)
        if group is not None:
            group.discard(outbox)
            if not group:
                del self._groups[outbox.frame]
        outbox.forget(self)

    def text_position(self, offset: int) -> str:
        """There are none."""
        return ""

    def _head(self, kind: str, ts: int, extra: bytes = b"") -> bytes:
        """How a frame begins, up to its data; ``ts`` in ns."""
        return b'{"type":"%s","ch":%s%s,"ts":%d,"data":[' % (kind.encode(), self._key, extra, ts // 1_000_000)

    def _write(self, text: bytes) -> None:
        """Send to all; who has no room for it is left out until it has drained."""
        metrics.frames.inc()
        for frame, group in list(self._groups.items()):
            data = frame(text)
            metrics.wire_bytes.inc(len(data) * len(group))
            for outbox in [outbox for outbox in group.send(data) if not outbox.event(data)]:
                group.discard(outbox)
                metrics.resnapshots.inc()
                outbox.left_behind(self, 0, patient=self.patient)

    def _write_latest(self, text: bytes) -> None:
        """Send to all; of those that do not keep up each gets the newest later."""
        metrics.frames.inc()
        for frame, group in self._groups.items():
            data = frame(text)
            metrics.wire_bytes.inc(len(data) * len(group))
            for outbox in group.send(data):
                outbox.latest(self, data)
