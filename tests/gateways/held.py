"""What a resuming client holds, whichever transport brought it, and how to wait for it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc

from tapewick.engine import encode_candles, encode_trades
from tapewick.model import CandleBatch, TradeBatch
from tapewick.v1 import service_pb2 as pb
from tests.gateways.event_source import Event, opened
from tests.gateways.grpc_rig import channel, rows_of, subscribed
from tests.gateways.rig import peer
from tests.gateways.test_stream import reduced

__all__ = ["Follower", "Held", "event_source", "grpc_stream", "told", "web_socket"]

REFUSALS = ("gap", "snapshot", "error")


class Held:
    """Every trade in the order it came, every candle row, and where the client stands in each channel.

    Without ``positions`` it begins with a snapshot of each channel, or with all from time ``start`` (ms) on; with
    them nothing but a recovered resume is accepted. ``token``: the last id of server-sent events.
    """

    def __init__(
        self, channels: Iterable[str], positions: dict[str, str] | None = None, start: int | None = None
    ) -> None:
        self.trades: dict[str, list[dict[str, Any]]] = {}
        self.rows: dict[str, list[dict[str, Any]]] = {}
        for name in channels:
            (self.trades if name.startswith("trade@") else self.rows)[name] = []
        self.positions = dict(positions or {})
        self.start = start
        self.token = ""
        self.order: list[tuple[str, int]] = []  # channels of the frames with rows, and how many

    @property
    def channels(self) -> list[str]:
        return [*self.trades, *self.rows]

    @property
    def wishes(self) -> list[dict[str, Any]]:
        """What to subscribe to, as JSON: a resume of what has begun, else the newest record or all from ``start``."""
        first = {"snapshot": 1} if self.start is None else {"since": {"ts": self.start}}
        return [
            {"ch": name, "since": self.positions[name]} if name in self.positions else {"ch": name, **first}
            for name in self.channels
        ]

    @property
    def begun(self) -> bool:
        """Whether every channel has given a position."""
        return self.positions.keys() == set(self.channels)

    def take(self, frame: dict[str, Any]) -> None:
        """One frame. A channel that has a position must not begin anew."""
        kind, name = frame["type"], frame.get("ch", "")
        begins = name not in self.positions or self.start is not None  # then a snapshot may have several pages
        assert kind not in REFUSALS or (kind == "snapshot" and begins), frame
        if kind == "subscribed":
            known = self.channels if self.start is not None else self.positions
            assert all(one["recovered"] == (one["ch"] in known) for one in frame["channels"]), frame
        if kind in ("event", "snapshot"):
            self.positions[name] = frame["pos"]
        if kind in ("event", "snapshot", "update"):
            self.order.append((name, len(frame["data"])))
            self.trades.get(name, self.rows.get(name, [])).extend(frame["data"])

    def candles(self, name: str) -> dict[int, tuple[Any, ...]]:
        """The settled candles of a channel, each in its newest version."""
        return reduced([row for row in self.rows[name] if row["state"] != "open"])


class Datas:
    """The data of events, as a list that grows with them."""

    def __init__(self, events: list[Event]) -> None:
        self._events = events

    def __getitem__(self, which: slice) -> list[dict[str, Any]]:
        return [event.data for event in self._events[which]]


class Told:
    """gRPC frames as what the JSON protocols would have sent, as a list that grows with them."""

    def __init__(self, frames: list[pb.Frame]) -> None:
        self._frames = frames

    def __getitem__(self, which: slice) -> list[dict[str, Any]]:
        return [told(frame) for frame in self._frames[which]]


def told(frame: pb.Frame) -> dict[str, Any]:
    """A gRPC frame as the JSON protocols would have sent it."""
    made: dict[str, Any] = {"type": pb.Frame.Type.Name(frame.type).lower(), "ch": frame.channel, "pos": frame.pos}
    made |= {name: text for name, text in (("from", frame.from_pos), ("to", frame.to_pos)) if text}
    made |= {"reason": frame.reason} if frame.reason else {}
    if made["type"] == "subscribed":
        made["channels"] = [
            {"ch": one.channel, "pos": one.pos, "recovered": one.recovered, "code": one.code} for one in frame.channels
        ]
    rows = rows_of(frame)
    if isinstance(rows, TradeBatch):
        made["data"] = json.loads(encode_trades(rows, times="ms", text_ids=False))
    elif isinstance(rows, CandleBatch):
        scales = rows.price_scale, rows.size_scale
        made["data"] = json.loads(encode_candles(rows.instrument, rows.rows, *scales, times="ms", text_ids=False))
    elif made["type"] in ("event", "snapshot"):
        made["data"] = []
    return made


class Follower:
    """A connected client of any transport, and what is held of what it has brought."""

    def __init__(self, held: Held, client: Any, frames: Any, ended: Callable[[], object]) -> None:
        self.held, self._client, self._frames, self._ended, self._taken = held, client, frames, ended, 0

    def take(self, most: int | None = None) -> None:
        """Take what has come since the last time; in all no more than ``most`` frames."""
        new = self._frames[self._taken : most]
        self._taken += len(new)
        for frame in new:
            self.held.take(frame)

    async def until(self, done: Callable[[Held], object], seconds: float = 60) -> None:
        """Take what comes until ``done`` is true of all that is held."""

        def look(_: Any) -> object:
            self.take()
            return done(self.held)

        await self._client.until(look, seconds)

    async def count(self, wanted: int) -> None:
        """Wait until so many frames have come, or no more will."""
        await self._client.until(lambda _: len(self._frames[:wanted]) >= wanted or self._ended())

    async def end(self) -> None:
        """Wait until the connection is gone; take what came before."""
        await self._client.until(lambda _: self._ended())
        self.take()


@asynccontextmanager
async def web_socket(url: str, held: Held) -> AsyncIterator[Follower]:
    """Follow over ``/v1/ws`` of the server at ``url``."""
    async with peer(url.replace("http", "ws", 1) + "/v1/ws") as c:
        c.subscribe(*held.wishes)
        yield Follower(held, c, c.frames, lambda: c.closed)


@asynccontextmanager
async def event_source(url: str, held: Held, *, budget: int | None = None, **options: Any) -> AsyncIterator[Follower]:
    """Follow over ``/v1/sse`` of the server at ``url``; ``budget``: bytes after which no more is read."""
    channels = ",".join(held.channels)
    first = {"snapshot": 1} if held.start is None else {"since_ts": held.start}
    async with opened(url, channels, held.token, budget=budget, **{**first, **options}) as s:
        assert s.status == 200, s.status
        try:
            yield Follower(held, s, Datas(s.events), lambda: s.ended)
        finally:
            held.token = s.last_id


@asynccontextmanager
async def grpc_stream(address: str, held: Held) -> AsyncIterator[Follower]:
    """Follow a ``Subscribe`` call of the server at ``address``."""
    async with channel(address) as made, subscribed(made) as c:
        with suppress(grpc.aio.AioRpcError):  # it has been cut already: the call's own end tells
            await c.subscribe(*(_renamed(wish) for wish in held.wishes))
        yield Follower(held, c, Told(c.frames), lambda: c.code)


def _renamed(wish: dict[str, Any]) -> dict[str, Any]:
    """A wish as fields of a ``Subscription``, whose times are in ns."""
    made = {{"ch": "channel"}.get(name, name): value for name, value in wish.items()}
    if isinstance(made.get("since"), dict):
        made["since_ts"] = made.pop("since")["ts"] * 10**6
    return made
