"""Which streams of which symbols go over which connections of one market kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal, TypeAlias

from tapewick.net.websocket import MAX_STREAMS, Feed
from tapewick.sources._binance_listing import Product

__all__ = ["CHANNELS", "Channel", "Streams", "channel_of"]

Channel: TypeAlias = Literal["trade", "aggTrade", "depth", "bookTicker", "kline_1m", "miniTicker"]

CHANNELS: dict[Channel, str] = {
    "trade": "trade",
    "aggTrade": "aggTrade",
    "depth": "depth@100ms",
    "bookTicker": "bookTicker",
    "kline_1m": "kline_1m",
    "miniTicker": "miniTicker",
}
"""Channels a source can carry, and the venue's stream names for them."""

_BY_NAME = {name: channel for channel, name in CHANNELS.items()}


def channel_of(stream: str) -> tuple[str, Channel] | None:
    """Symbol and channel of a stream we ask for, as in ``btcusdt@depth@100ms``; None for any other."""
    symbol, _, name = stream.partition("@")
    channel = _BY_NAME.get(name)
    return None if channel is None else (symbol.upper(), channel)


class Streams:
    """The feeds of one source. ``open`` makes and starts a feed for the path in front of ``/stream``.

    All streams of a symbol that are served on one path go over one connection, so that what belongs
    together arrives in one order; a feed is filled before the next is opened.
    """

    def __init__(
        self, product: Product, channels: Iterable[Channel], open: Callable[[str], Feed], most: int = MAX_STREAMS
    ) -> None:
        self._open, self._most = open, most
        self._paths: dict[str, list[Channel]] = {}
        for channel in dict.fromkeys(channels):
            self._paths.setdefault(product.tiers.get(channel, ""), []).append(channel)
        self._feeds: dict[str, list[Feed]] = {path: [] for path in self._paths}
        self._carrier: dict[str, Feed] = {}

    def __iter__(self) -> Iterator[Feed]:
        return (feed for feeds in self._feeds.values() for feed in feeds)

    def add(self, symbols: Iterable[str]) -> None:
        """Carry all channels of ``symbols`` too."""
        for path, channels in self._paths.items():
            wanted: dict[Feed, list[str]] = {}
            for symbol in symbols:
                names = [f"{symbol.lower()}@{CHANNELS[channel]}" for channel in channels]
                if names[0] in self._carrier:
                    continue
                feed = self._with_room(path, len(names), wanted)
                wanted.setdefault(feed, []).extend(names)
                self._carrier.update(dict.fromkeys(names, feed))
            for feed, names in wanted.items():
                feed.subscribe(names)

    def remove(self, symbols: Iterable[str]) -> None:
        """Carry ``symbols`` no longer."""
        for symbol in symbols:
            for channels in self._paths.values():
                for channel in channels:
                    name = f"{symbol.lower()}@{CHANNELS[channel]}"
                    if (feed := self._carrier.pop(name, None)) is not None:
                        feed.unsubscribe([name])

    def resubscribe(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Unsubscribe and subscribe anew single (symbol, channel) streams that went silent."""
        for symbol, channel in pairs:
            name = f"{symbol.lower()}@{CHANNELS.get(channel, channel)}"  # type: ignore[call-overload]
            if (feed := self._carrier.get(name)) is not None:
                feed.resubscribe([name])

    def carried(self, feed: Feed) -> Iterator[tuple[str, Channel]]:
        """What ``feed`` carries, as symbol and channel."""
        return (found for stream in feed.streams if (found := channel_of(stream)) is not None)

    def _with_room(self, path: str, count: int, wanted: dict[Feed, list[str]]) -> Feed:
        for feed in self._feeds[path]:
            if len(feed.wanted) + len(wanted.get(feed, ())) + count <= self._most:
                return feed
        feed = self._open(path)
        self._feeds[path].append(feed)
        return feed
