"""Which streams one connection carries: control messages, paced, numbered, acknowledged, repeated.

Nothing is queued: the difference between what is wanted and what the connection has been asked
for decides the next message, so changes that cancel each other cost none.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

import msgspec

__all__ = ["STREAMS_PER_MESSAGE", "Control"]

STREAMS_PER_MESSAGE = 100  # keeps a message, and the URL of a connection, near 2 KiB
SENDS_PER_SECOND = 3  # the venue closes at 5 incoming messages per second, pongs included
ANSWER_WITHIN = 10.0
ANSWER_BYTES = 4096
TRIES = 3


class _Error(msgspec.Struct):
    code: int = 0
    msg: str = ""


class _Answer(msgspec.Struct):
    id: int | str | None = None
    result: msgspec.Raw = msgspec.Raw()
    code: int | None = None
    msg: str = ""
    error: _Error | None = None


class _Asked(NamedTuple):
    method: str
    streams: tuple[str, ...]
    deadline: float


_ANSWER = msgspec.json.Decoder(_Answer)


class Control:
    """The control side of one connection that carries ``has`` from its URL and shall carry ``wanted``.

    ``wanted`` is shared and changes; ``nudge`` tells that it did. ``on_refused`` is told which streams the
    venue refused, or did not acknowledge after ``TRIES`` messages, and why; ``on_begun`` those it acknowledged.
    ``settled`` is set while everything wanted has been asked for and acknowledged.
    """

    def __init__(
        self,
        wanted: Mapping[str, None],
        has: Iterable[str],
        on_refused: Callable[[Sequence[str], str], None],
        on_begun: Callable[[Sequence[str]], None] = lambda streams: None,
    ) -> None:
        self._wanted = wanted
        self._has = dict.fromkeys(has)
        self._forced: dict[str, None] = {}
        self._on_refused, self._on_begun = on_refused, on_begun
        self._tries: Counter[str] = Counter()
        self._ids = itertools.count(1)
        self._changed = asyncio.Event()
        self._sent = -math.inf
        self._loop = asyncio.get_running_loop()
        self.pending: dict[int | str, _Asked] = {}
        self.settled = asyncio.Event()

    @property
    def carried(self) -> set[str]:
        """Streams of the URL, and those the venue has acknowledged."""
        return set(self._has).difference(*(asked.streams for asked in self.pending.values()))

    def nudge(self) -> None:
        """What is wanted has changed."""
        self.settled.clear()
        self._changed.set()

    def force(self, streams: Iterable[str]) -> None:
        """Unsubscribe from ``streams`` and subscribe again, whatever the venue believes they are."""
        self._forced.update(dict.fromkeys(stream for stream in streams if stream in self._has))
        self.nudge()

    def count_pong(self) -> None:
        """A pong or ping was sent: it counts like a control message."""
        self._sent = self._loop.time()

    def heard(self, frame: bytes) -> None:
        """Look whether ``frame`` answers a control message; to be called while ``pending`` is not empty."""
        if len(frame) > ANSWER_BYTES or b'"id"' not in frame:
            return
        try:
            answer = _ANSWER.decode(frame)
        except msgspec.MsgspecError:
            return  # no answer; what it is instead, its reader finds out
        code, said = (answer.error.code, answer.error.msg) if answer.error else (answer.code, answer.msg)
        # An error may come without an id; then it means the oldest message.
        id = next(iter(self.pending)) if answer.id is None and code is not None else answer.id
        if id not in self.pending or (code is None and not answer.result):
            return
        asked = self.pending.pop(id)
        if code is not None:
            # ascii() keeps control characters of a hostile answer out of logs.
            self._on_refused(asked.streams, f"{asked.method} was refused with code {code}: {ascii(said[:160])}")
        elif asked.method == "SUBSCRIBE":
            self._on_begun(asked.streams)
        self._tries -= Counter(asked.streams)
        self._changed.set()

    async def run(self, send: Callable[[bytes], None], greeting: Sequence[bytes]) -> None:
        """Send ``greeting``, then keep the connection to what is wanted; ends by cancellation."""
        for message in greeting:
            await self._pace()
            self._send(send, message)
        while True:
            self._expire()
            method, streams = self._next()
            if not streams:
                if not self.pending:
                    self.settled.set()
                await self._change()
            elif self._sent + 1 / SENDS_PER_SECOND > self._loop.time():
                await self._pace()  # and look again: what is wanted may have changed
            else:
                self._ask(send, method, streams)

    def _next(self) -> tuple[str, tuple[str, ...]]:
        """The next message due: departures first, they make room."""
        leaving = [stream for stream in self._has if stream not in self._wanted or stream in self._forced]
        if leaving:
            return "UNSUBSCRIBE", tuple(leaving[:STREAMS_PER_MESSAGE])
        missing = (stream for stream in self._wanted if stream not in self._has)
        return "SUBSCRIBE", tuple(itertools.islice(missing, STREAMS_PER_MESSAGE))

    def _ask(self, send: Callable[[bytes], None], method: str, streams: tuple[str, ...]) -> None:
        for stream in streams:
            if method == "SUBSCRIBE":
                self._has[stream] = None
                self._tries[stream] += 1
            else:
                del self._has[stream]
                self._forced.pop(stream, None)
        id = next(self._ids)
        self.pending[id] = _Asked(method, streams, self._loop.time() + ANSWER_WITHIN)
        self._send(send, msgspec.json.encode({"method": method, "params": streams, "id": id}))

    def _expire(self) -> None:
        """Ask again for what was not acknowledged in time, and report it in the end."""
        now = self._loop.time()
        for id, asked in list(self.pending.items()):
            if asked.deadline > now:
                continue
            del self.pending[id]
            if asked.method != "SUBSCRIBE":
                continue
            again = [stream for stream in asked.streams if self._tries[stream] < TRIES]
            for stream in again:
                self._has.pop(stream, None)
            lost = [stream for stream in asked.streams if self._tries[stream] >= TRIES]
            if lost:
                self._on_refused(lost, f"SUBSCRIBE was not acknowledged {TRIES} times")

    async def _change(self) -> None:
        """Wait for a change or until an acknowledgement is overdue."""
        self._changed.clear()
        deadline = min((asked.deadline for asked in self.pending.values()), default=None)
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await self._changed.wait()

    async def _pace(self) -> None:
        await asyncio.sleep(max(0.0, self._sent + 1 / SENDS_PER_SECOND - self._loop.time()))

    def _send(self, send: Callable[[bytes], None], message: bytes) -> None:
        send(message)
        self._sent = self._loop.time()
