"""Channel ``health``: changes of streams, gaps and books, each told once."""

from __future__ import annotations

import asyncio

import msgspec

from tapewick import wire
from tapewick.channel import Channel
from tapewick.conditions import Condition
from tapewick.market import Market
from tapewick.proto_frames import in_ns
from tapewick.readers import Readers

__all__ = ["HealthFanout"]


class HealthFanout(Readers):
    """The current states as a snapshot, then every change. Nothing is left out for a slow reader: it is
    given up after a while."""

    patient = False

    def __init__(self, market: Market, channel: Channel, *, proto: bool = False) -> None:
        super().__init__(channel)
        self._market, self.instrument, self._proto = market, channel.instrument, proto
        self._events: list[bytes] = []
        self._soon: asyncio.Handle | None = None

    async def open(self) -> None:
        await self._market.listen_health(self)

    def close(self) -> None:
        self._market.leave_health(self)
        if self._soon is not None:
            self._soon.cancel()

    def changed(self, row: Condition) -> None:
        if self._groups:
            self._events.append(self._text("event", [row], str(row["kind"])))
            if self._soon is None:
                self._soon = self._loop.call_soon(self._flush)

    async def _present(self) -> bytes:
        rows = await self._market.conditions(self.instrument)
        self._flush()
        return self._text("snapshot", rows)

    def _text(self, type: str, rows: list[Condition], kind: str = "") -> bytes:
        now = self._market.now()
        if self._proto:
            return wire.frame(type, channel=self.name, ts=now, kind=kind, conditions=[in_ns(row) for row in rows])
        extra = b',"kind":"%s"' % kind.encode() if kind else b""
        return self._head(type, now, extra) + msgspec.json.encode(rows)[1:] + b"}"

    def _flush(self) -> None:
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        events, self._events = self._events, []
        for text in events:
            self._write(text)
