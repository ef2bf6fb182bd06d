"""JSON-RPC over HTTP to a chain's nodes: several addresses for one chain, asked in turn when one fails.

The address in use stays in use until it fails; one that failed rests by jittered back-off. Addresses hold keys:
nothing here shows more of one than ``scheme://host:port``.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Self, TypeVar

import structlog

from tapewick import metrics, secrecy
from tapewick.clock import Clock, ElapsedClock
from tapewick.errors import BadPayload, ConfigError, Disconnected, NodeRefused, SourceError, VenueRefused
from tapewick.net._node import Node
from tapewick.net.address import shown
from tapewick.net.backoff import Backoff

__all__ = ["JsonRpc"]

log = structlog.get_logger()
T = TypeVar("T")
QUIET = 60 * 10**9  # between two lines of log about one address
LONG = 3 * 10**9  # that all addresses rest before it is told


class _Address:
    """One node, and how it behaved."""

    def __init__(self, node: Node, backoff: Backoff) -> None:
        self.node = node
        self.backoff = backoff
        self.checked = False
        self.rests_until = 0
        self.told_at = -QUIET
        self.failed = ""


class JsonRpc:
    """Calls to the chain ``chain_id``; an address that serves another one is not used.

    ``turn`` rises whenever another answer than the one before may come from another address: who compares two
    answers asks whether it is the same still. ``trouble`` tells why nobody is asked for seconds, None while answers
    come. ``clock`` counts rests: by default one that nobody sets, as the time of day may be set back.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        chain_id: int,
        clock: Clock | None = None,
        timeout: float = 20.0,
        max_bytes: int = 64 << 20,
        backoff: Backoff | None = None,
    ) -> None:
        if not urls:
            raise ConfigError(f"chain {chain_id} has no node: name at least one URL")
        for url in urls:
            secrecy.learn(url)
        self._chain_id = chain_id
        self._clock = clock or ElapsedClock()
        pace = backoff or Backoff(base=0.5, cap=30.0)
        self._addresses = [
            _Address(Node(url, _named(urls, i), timeout=timeout, max_bytes=max_bytes), pace.twin())
            for i, url in enumerate(urls)
        ]
        self._current = 0
        self._numbers = itertools.count(1)
        self.turn = 0
        self.trouble: str | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        for address in self._addresses:
            await address.node.aclose()

    @property
    def width(self) -> int:
        """How many addresses there are."""
        return len(self._addresses)

    @property
    def name(self) -> str:
        """The address in use, as it may be shown."""
        return self._addresses[self._current].node.name

    async def call(self, method: str, params: Sequence[Any], type: type[T], *, rounds: int = 3) -> T:
        """The ``result`` of one call decoded as ``type``; every address is tried at most ``rounds`` times.

        Raises ``NodeRefused`` where the node says no (``final``: it would again), ``TooWide`` where it wants a
        smaller range, ``Disconnected``, ``VenueRefused`` or ``BadPayload`` where no address gave an answer.
        """
        for last in reversed(range(rounds * self.width)):
            address = await self._ready()
            try:
                await self._check(address)
                answer = await address.node.ask(method, params, type, next(self._numbers))
            except SourceError as error:
                final = isinstance(error, NodeRefused) and error.final
                self._count(address, error)
                if final:
                    address.backoff.reset()
                    self.trouble = None
                    raise
                self._rest(address, error)
                if not last:
                    raise
            else:
                metrics.chain_requests.labels(address.node.name, "answered").inc()
                address.backoff.reset()
                self.trouble = None
                return answer
        raise AssertionError("an address was asked, or raised")

    def distrust(self, why: SourceError) -> None:
        """The address in use answered, but its answers do not fit together: let another one try."""
        self._rest(self._addresses[self._current], why)

    def next(self) -> None:
        """Ask the next address from now on, nothing held against this one."""
        if self.width > 1:
            self._current = (self._current + 1) % self.width
            self.turn += 1

    def _count(self, address: _Address, error: SourceError) -> None:
        outcome = {NodeRefused: "refused", VenueRefused: "refused", Disconnected: "unreachable"}.get(type(error))
        metrics.chain_requests.labels(address.node.name, outcome or "unreadable").inc()

    async def _ready(self) -> _Address:
        """The address in use, or the next one that need not rest; waits where all must."""
        while True:
            now = self._clock.now()
            for offset in range(self.width):
                place = (self._current + offset) % self.width
                if self._addresses[place].rests_until <= now:
                    if place != self._current:
                        self._current = place
                        self.turn += 1
                    return self._addresses[place]
            first = min(self._addresses, key=lambda address: address.rests_until)
            wait = first.rests_until - now
            if wait > LONG:
                self.trouble = f"no node is asked for {wait / 1e9:.0f} s: {first.failed}"
            await self._clock.sleep(wait / 1e9)

    def _rest(self, address: _Address, error: SourceError) -> None:
        wait = address.backoff.delay(getattr(error, "retry_after", None))
        now = self._clock.now()
        address.rests_until, address.failed = now + int(wait * 1e9), str(error)
        if now - address.told_at >= QUIET:
            address.told_at = now
            log.warning("a node failed", node=address.node.name, cause=str(error))
        self.next()

    async def _check(self, address: _Address) -> None:
        """Its chain must be ours; asked once, and again after it was away."""
        if address.checked and address.backoff.failures == 0:
            return
        said = await address.node.ask("eth_chainId", [], str, next(self._numbers))
        try:
            served = int(said, 16)
        except ValueError as error:
            raise BadPayload(f"{address.node.name} names no chain: {said[:40]!a}") from error
        if served != self._chain_id:
            raise BadPayload(f"{address.node.name} serves chain {served}, not {self._chain_id}: correct its URL")
        address.checked = True


def _named(urls: Sequence[str], place: int) -> str:
    """What may be shown of an address, numbered where several look the same."""
    name = shown(urls[place])
    return f"{name} #{place + 1}" if sum(shown(url) == name for url in urls) > 1 else name
