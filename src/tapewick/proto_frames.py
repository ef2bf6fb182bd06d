"""The events of the JSON protocols as protobuf ``Frame`` messages: rows as columns, encoded once per channel.

For binary WebSocket frames and gRPC alike; no protobuf runtime is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from tapewick import wire
from tapewick.channel import Batch, Channel, Page
from tapewick.closed_candles import closed_candles, without_open
from tapewick.frames import Frames, Text
from tapewick.market import Market, Window
from tapewick.model import CandleBatch, position

__all__ = ["ClosedFrames", "ProtoFrames", "control", "in_ns"]

RENAMED = {"ch": "channel", "from": "from_pos", "to": "to_pos", "msg": "message", "dropped": "count"}
TOLD = {"type", "channel", "pos", "from_pos", "to_pos", "reason", "count", "id", "code", "message", "ts"}
MS = 1_000_000


class ProtoFrames(Frames):
    """``Frame`` messages of a channel of trades or candles."""

    def __init__(self, market: Market, channel: Channel) -> None:
        super().__init__(market, channel)
        self._name = channel.name

    def data(
        self,
        type: str,
        offset: int | None,
        batch: Batch,
        *,
        first: int = 0,
        late: bool = False,
        kind: str = "",
        why: str = "",
    ) -> bytes:
        if isinstance(batch, CandleBatch):
            batch = replace(batch, epoch=self.epoch, provisional=type == "update")
        return wire.frame(
            type,
            batch,
            channel=self._name,
            pos="" if offset is None else position(self.epoch, offset),
            from_pos=position(self.epoch, first) if first else "",
            ts=self._market.now(),
            kind=kind,
            reason=why,
            late=late,
        )

    def skip(self, first: int, last: int) -> bytes:
        ends = position(self.epoch, first), position(self.epoch, last)
        return wire.frame("skip", channel=self._name, from_pos=ends[0], to_pos=ends[1], count=last - first + 1)


class ClosedFrames(ProtoFrames):
    """The same for those who want no open candles: of them nothing is left but empty frames, which are not sent."""

    def data(self, type: str, offset: int | None, batch: Batch, **more: Any) -> bytes:
        return b"" if type == "update" else super().data(type, offset, batch, **more)

    def events(self, batch: Batch, before: int, *, replay: bool = False) -> Iterator[Text]:
        return super().events(batch, before)  # without open rows, which only a replay has

    async def history(self, count: int, start: int | None = None) -> Page:
        """As many closed rows; pages from a time on are cut where they are with open ones."""
        if self._channel.tf is None or start is not None:
            return await super().history(count, start)
        window = Window(limit=count, newest=True)
        found = await closed_candles(self._market, self._channel.instrument, self._channel.tf, window)
        return Page(found.batch, found.head.pos, False)

    def snapshot(self, page: Page) -> bytes:
        if isinstance(page.batch, CandleBatch):
            page = page._replace(batch=without_open(page.batch))
        return super().snapshot(page)


def control(message: Mapping[str, Any]) -> bytes:
    """A frame of one connection's own, from what the JSON protocols would send: what the schema has of it.

    Refused channels are told among the others, by their code; an id becomes text; times become ns.
    """
    fields = {RENAMED.get(name, name): value for name, value in message.items()}
    rows = [*fields.pop("channels", ()), *fields.pop("errors", ())]
    if isinstance(fields.get("pos"), Mapping):  # where to resume each
        rows += [{"ch": channel, "pos": pos} for channel, pos in fields.pop("pos").items()]
    if "server_ts" in fields:
        fields["ts"] = fields["server_ts"] * MS
    if "id" in fields:
        fields["id"] = "" if fields["id"] is None else str(fields["id"])
    told = {name: value for name, value in fields.items() if name in TOLD}
    return wire.frame(told.pop("type"), channels=[_state(row) for row in rows], **told)


def _state(row: Mapping[str, Any]) -> dict[str, Any]:
    return {RENAMED.get(name, name): value for name, value in row.items()}


def in_ns(row: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON row of a ticker or condition with its times as ns, as messages tell them."""
    times = {name: row[name] * MS for name in ("ts", "ts_event", "left_ts", "right_ts") if row.get(name) is not None}
    return {**row, **times}
