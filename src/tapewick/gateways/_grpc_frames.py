"""The frames of the gRPC stream: the events of the JSON protocols as protobuf, rows as columns.

Encoded once per channel by the fan-out that serves the JSON protocols too: only the writing differs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from tapewick import wire
from tapewick.channel import Batch, Channel, Page
from tapewick.fanout import Fanout
from tapewick.frames import Frames, Text
from tapewick.gateways._grpc_books import BookReaders, QuoteReaders
from tapewick.hub import Hub
from tapewick.market import Market
from tapewick.model import CandleBatch, State, position
from tapewick.readers import Readers, Request
from tapewick.v1 import service_pb2 as pb

__all__ = ["ProtoHub", "control"]

RENAMED = {"ch": "channel", "from": "from_pos", "to": "to_pos", "msg": "message", "dropped": "count"}


class ProtoFrames(Frames):
    """``Frame`` messages of a channel of trades or candles."""

    def __init__(self, market: Market, channel: Channel) -> None:
        super().__init__(market, channel)
        self._market, self._name = market, channel.name

    def data(
        self, type: str, offset: int, batch: Batch, *, first: int = 0, late: bool = False, kind: str = "", why: str = ""
    ) -> bytes:
        if isinstance(batch, CandleBatch):
            batch = replace(batch, epoch=self.epoch, provisional=type == "update")
        return wire.frame(
            type,
            batch,
            channel=self._name,
            pos=position(self.epoch, offset),
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

    def data(self, type: str, offset: int, batch: Batch, **more: Any) -> bytes:
        return b"" if type == "update" else super().data(type, offset, batch, **more)

    def events(self, batch: Batch, before: int, *, replay: bool = False) -> Iterator[Text]:
        return super().events(batch, before)  # without open rows, which only a replay has

    def snapshot(self, page: Page) -> bytes:
        if isinstance(page.batch, CandleBatch):
            rows = page.batch.rows
            page = page._replace(batch=replace(page.batch, rows=rows[rows["state"] != State.OPEN]))
        return super().snapshot(page)


class ProtoHub(Hub):
    """All channels somebody follows over gRPC."""

    def _made(self, request: Request) -> Fanout | Readers:
        channel = request.channel
        if channel.kind in ("book", "book_top"):
            return BookReaders(self._market, channel, self.limits, request.levels)
        if channel.kind == "bbo":
            return QuoteReaders(self._market, channel, self.limits)
        frames = ProtoFrames if request.include_open else ClosedFrames
        return Fanout(self._market, channel, self.limits, frames)


def control(message: Mapping[str, Any]) -> bytes:
    """A frame of one connection's own, from what the JSON protocols would send."""
    fields = {RENAMED.get(name, name): value for name, value in message.items()}
    frame = pb.Frame(type=pb.Frame.Type.Value(fields.pop("type").upper()))
    for name, value in fields.items():
        if name == "channels" or (name == "pos" and isinstance(value, Mapping)):
            rows = value if name == "channels" else [{"ch": channel, "pos": pos} for channel, pos in value.items()]
            frame.channels.extend(_state(row) for row in rows)
        else:
            setattr(frame, name, value)
    return bytes(frame.SerializeToString())


def _state(row: Mapping[str, Any]) -> pb.ChannelState:
    return pb.ChannelState(**{RENAMED.get(name, name): value for name, value in row.items()})
