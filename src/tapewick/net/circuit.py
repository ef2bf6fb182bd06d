"""A switch that stops asking a venue which does not answer, and finds out when it does again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias
from weakref import WeakKeyDictionary

from tapewick import metrics
from tapewick.clock import Clock
from tapewick.errors import Disconnected, SourceError, VenueRefused
from tapewick.net.backoff import Backoff

__all__ = ["Circuit", "CircuitChange", "CircuitState", "tell"]

CircuitState: TypeAlias = Literal["closed", "open", "half_open"]


STATES: tuple[CircuitState, ...] = ("closed", "half_open", "open")  # from good to bad

_told: dict[str, WeakKeyDictionary[Circuit, CircuitState]] = {}


def tell(host: str, circuit: Circuit, state: CircuitState | None) -> None:
    """Set the metric of ``host`` to the worst state its circuits told; None: this one is in use no longer."""
    states = _told.setdefault(host, WeakKeyDictionary())
    if state is None:
        states.pop(circuit, None)
    else:
        states[circuit] = state
    worst = max(states.values(), key=STATES.index, default="closed")
    for each in STATES:
        metrics.venue_circuit.labels(host, each).set(int(each == worst))


class CircuitChange(NamedTuple):
    """The circuit changed: why, the HTTP status that opened it (0: no answer), since when (UTC ns)."""

    state: CircuitState
    detail: str
    status: int
    ts: int


class Circuit:
    """``closed``: everybody passes. ``open``: all wait. ``half_open``: one tries, the others wait for its outcome."""

    def __init__(self, clock: Clock, backoff: Backoff, on_change: Callable[[CircuitChange], None]) -> None:
        self._clock = clock
        self._backoff = backoff
        self._on_change = on_change
        self._changed = asyncio.Event()
        self._until = 0
        self._ordered = False
        self.state: CircuitState = "closed"
        self.detail = ""
        self.status = 0

    async def enter(self, patience: float) -> bool:
        """Wait until one may ask; True for the one that probes, who must call ``release`` in the end.

        Raises what opened the circuit when it stays open for more than ``patience`` seconds.
        """
        while self.state != "closed":
            wait = self._until - self._clock.now()
            if self.state == "half_open":
                self._changed.clear()
                await self._changed.wait()
            elif wait <= 0:
                self._become("half_open")
                return True
            elif wait > patience * 1e9:
                raise self._cause(wait)
            else:
                await self._clock.sleep(wait / 1e9)
        return False

    def release(self) -> None:
        """The probe ended; one that brought no outcome lets the next one try."""
        if self.state == "half_open":
            self._become("open")

    def close(self) -> None:
        """The venue answered. What was under way when it ordered to wait changes nothing about that."""
        self._backoff.reset()
        if self.state == "half_open" or (self.state == "open" and not self._ordered):
            self.detail, self.status = "", 0
            self._become("closed")

    def open(self, error: SourceError, *, until: int | None = None) -> None:
        """Stop asking because of ``error``: until the time (UTC ns) the venue gave, else by back-off."""
        if until is None:
            if self.state == "open":  # a straggler of those that were under way when it opened
                return
            until = self._clock.now() + int(self._backoff.delay() * 1e9)
            self._ordered = False
        else:
            self._ordered = True
        self._until = max(self._until, until)
        self.detail, self.status = str(error), getattr(error, "status", 0)
        self._become("open")

    def _become(self, state: CircuitState) -> None:
        self.state = state
        self._changed.set()
        self._on_change(CircuitChange(state, self.detail, self.status, self._clock.now()))

    def _cause(self, wait: int) -> SourceError:
        detail = f"{self.detail}; it is not asked again for {wait // 10**9} s"
        if self.status:
            return VenueRefused(detail, status=self.status, retry_after=wait / 1e9)
        return Disconnected(detail)
