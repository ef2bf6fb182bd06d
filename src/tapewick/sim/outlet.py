"""Who listens to which stream, and how a frame gets to them: once, twice, or in another order."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from typing import TypeAlias

from tapewick.sim.client import Client, ws_frame

__all__ = ["Make", "Outlet"]

Make: TypeAlias = Callable[[int], bytes]
"""A payload with times in a unit: 1 for ms, 1000 for µs."""


class Outlet:
    """The streams of all symbols. ``duplicate``: how many of the next frames are sent twice; ``unit``: the
    one every client gets, whatever it asked for (0: its own)."""

    def __init__(self, seed: int) -> None:
        self.clients: set[Client] = set()
        self.duplicate = 0
        self.unit = 0
        self._listeners: dict[str, dict[str, set[Client]]] = {}
        self._random = random.Random(seed)
        self._held: list[tuple[str, Make]] = []
        self._hold = 0

    def subscribe(self, client: Client, streams: list[str]) -> None:
        self.clients.add(client)
        for stream in streams:
            name, _, kind = stream.partition("@")
            client.streams[stream] = None
            self._listeners.setdefault(name, {}).setdefault(kind, set()).add(client)

    def unsubscribe(self, client: Client, streams: list[str]) -> None:
        for stream in streams:
            name, _, kind = stream.partition("@")
            client.streams.pop(stream, None)
            kinds = self._listeners.get(name, {})
            kinds.get(kind, set()).discard(client)
            if not kinds.get(kind):
                kinds.pop(kind, None)

    def forget(self, client: Client) -> None:
        self.unsubscribe(client, list(client.streams))
        self.clients.discard(client)

    def kinds(self, name: str) -> Collection[str]:
        """The kinds of stream (``trade``, ``kline_1m`` …) somebody wants of a lower-case symbol."""
        return self._listeners.get(name, {}).keys()

    def reorder(self, count: int) -> None:
        """Keep the next ``count`` frames, then send them in another order."""
        self._hold += count

    def publish(self, stream: str, make: Make) -> None:
        """Queue a frame for everyone who listens to ``stream``."""
        if self._hold:
            self._hold -= 1
            self._held.append((stream, make))
            if not self._hold:
                self.release()
            return
        self._queue(stream, make)
        if self.duplicate:
            self.duplicate -= 1
            self._queue(stream, make)

    def release(self) -> None:
        """Send what ``reorder`` keeps, mixed."""
        held, self._held, self._hold = self._held, [], 0
        self._random.shuffle(held)
        for stream, make in held:
            self._queue(stream, make)

    @property
    def holding(self) -> bool:
        return bool(self._held)

    def _queue(self, stream: str, make: Make) -> None:
        name, _, kind = stream.partition("@")
        made: dict[tuple[int, bool], bytes] = {}
        for client in self._listeners.get(name, {}).get(kind, ()):
            key = self.unit or client.unit, client.combined
            if (frame := made.get(key)) is None:
                data = make(key[0])
                data = b'{"stream":"%b","data":%b}' % (stream.encode(), data) if client.combined else data
                frame = made[key] = ws_frame(data)
            client.queue(frame)
