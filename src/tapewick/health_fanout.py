"""Channel ``health``: changes of streams, gaps and books, each told once."""

from __future__ import annotations

import asyncio

import msgspec

from tapewick.channel import Channel
from tapewick.conditions import Condition
from tapewick.market import Market
from tapewick.readers import Readers

__all__ = ["HealthFanout"]


class HealthFanout(Readers):
    """The current states as a snapshot, then every change. Nothing is left out for a slow reader: it is
    given up after a while."""

    patient = False

    def __init__(self, market: Market, channel: Channel) -> None:
        super().__init__(channel)
        self._market, self.instrument = market, channel.instrument
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
            kind = b',"kind":"%s"' % str(row["kind"]).encode()
            self._events.append(self._head("event", self._market.now(), kind) + msgspec.json.encode(row) + b"]}")
            if self._soon is None:
                self._soon = self._loop.call_soon(self._flush)

    async def _present(self) -> bytes:
        rows = await self._market.conditions(self.instrument)
        self._flush()
        return self._head("snapshot", self._market.now()) + msgspec.json.encode(rows)[1:] + b"}"

    def _flush(self) -> None:
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        events, self._events = self._events, []
        for text in events:
            self._write(text)
