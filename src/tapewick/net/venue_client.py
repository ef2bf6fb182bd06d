"""REST requests to a venue that counts, limits and bans: paced by weight, retried within bounds.

What the venue orders is obeyed by every client of the process: 429 and 418 stop all requests to the host
for the time it gave. What it cannot answer (5xx, no answer, HTML, a cut body) is asked again a few times
with full jitter; then the circuit opens, and single probes find out when the venue is back.
"""

from __future__ import annotations

import itertools
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Self, TypeVar
from urllib.parse import urlsplit

from tapewick import metrics
from tapewick.clock import Clock, RealClock
from tapewick.errors import ConfigError, Disconnected, SourceError, VenueRefused
from tapewick.net.address import shown
from tapewick.net.backoff import Backoff
from tapewick.net.budget import HostBudget, Priority, budget_for
from tapewick.net.circuit import Circuit, CircuitChange, CircuitState, tell
from tapewick.net.http import JsonClient

__all__ = ["CircuitChange", "Priority", "VenueClient"]

T = TypeVar("T")

USED_WEIGHT = "x-mbx-used-weight-1m"
FORBIDDEN_FOR = 300 * 10**9  # ns in which a URL the firewall turned down is not sent again
FORBIDDEN_KEPT = 256
HOME_AFTER = 600 * 10**9  # ns after which a fallback address gives way to the first one again
RETRY_CAP = 5.0  # seconds between the attempts of one request, at most
UNTOLD_WAIT = 60.0  # for a 429 that names no time: the venue counts by the minute
_OUTCOMES = {403: "forbidden", 408: "error", 418: "banned", 429: "limited", 451: "region"}


class VenueClient:
    """GET requests to the first of ``base_urls`` that serves this machine.

    ``share`` of ``limit`` weight per minute and host belong to this process. ``attempts`` bounds how often one
    request is sent, ``patience`` how many seconds it waits for an order of the venue or an open circuit to end;
    ``retry_cap`` bounds the back-off of the circuit. ``setting`` is what the operator changes to use another address.
    ``headers`` go with each request.
    ``on_state`` is told each change of the circuit and must not wait. ``counters``: requests by outcome:
    ok, rejected (4xx), limited (429), banned (418), forbidden (403), region (451), error (5xx, unreadable),
    unreachable, shape (JSON of another shape), cancelled, withheld (not sent: a forbidden URL).
    """

    def __init__(
        self,
        base_urls: Sequence[str],
        *,
        clock: Clock | None = None,
        share: float = 0.5,
        limit: int = 6000,
        timeout: float = 10.0,
        attempts: int = 4,
        patience: float = 90.0,
        retry_cap: float = 60.0,
        setting: str = "BINANCE_BASE_URL",
        headers: Mapping[str, str] = MappingProxyType({}),
        on_state: Callable[[CircuitChange], None] | None = None,
    ) -> None:
        if not base_urls:
            raise ConfigError(f"no address to ask: set {setting}")
        self._urls = tuple(base_urls)
        self._clock = clock or RealClock()
        self._timeout = timeout
        self._attempts = attempts
        self._patience = patience
        self._retry_cap = min(RETRY_CAP, retry_cap)
        self._setting, self._headers = setting, dict(headers)
        self._on_state = on_state
        self._budgets = [
            budget_for(urlsplit(url).netloc.rpartition("@")[2], limit=limit, share=share) for url in self._urls
        ]
        self._clients: dict[int, JsonClient] = {}
        self._current = 0
        self._moved = 0
        self._barred: set[int] = set()
        self._forbidden: OrderedDict[str, int] = OrderedDict()
        self._circuit = Circuit(self._clock, Backoff(cap=retry_cap), self._changed)
        self._tell("closed")
        self.counters: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        self._tell(None)
        for client in self._clients.values():
            await client.aclose()

    @property
    def host(self) -> str:
        """Scheme, host and port now in use."""
        return shown(self._urls[self._current])

    @property
    def _budget(self) -> HostBudget:
        return self._budgets[self._current]

    @property
    def state(self) -> CircuitState:
        """``open`` also while the venue's order to wait, given to any client of this process, lasts."""
        blocked = self._budget.blocked_until > self._clock.now()
        return "open" if blocked and self._circuit.state == "closed" else self._circuit.state

    @property
    def trouble(self) -> str | None:
        """Why the venue is not asked at present; None while all is well."""
        if self.state == "closed":
            return None
        return self._circuit.detail or f"{self.host} told this address to wait (HTTP {self._budget.blocked_status})"

    @property
    def weight_used(self) -> int:
        """Weight used at the current host in the running minute."""
        return self._budget.used(self._clock)

    async def get(
        self,
        path: str,
        type: type[T],
        params: Mapping[str, str | int] | None = None,
        *,
        weight: int = 1,
        priority: Priority = Priority.REPAIR,
    ) -> T:
        """The answer to ``GET path?params`` decoded as ``type`` (``msgspec.Raw``: its bytes, as they came).

        Waits for budget. Raises ``VenueRefused`` for an error status that retrying does not change, ``BadPayload``
        for JSON of another shape, ``Disconnected`` or ``VenueRefused`` after ``attempts`` failures, and either at
        once while the venue's order to wait lasts longer than ``patience``.
        """
        request = f"{path}?{params or ''}"
        self._withhold(request)
        backoff = Backoff(cap=self._retry_cap)
        for attempt in itertools.count(1):
            probing = await self._circuit.enter(self._patience)
            try:
                at = self._home()
                window = await self._budgets[at].take(weight, priority, self._clock, patience=self._patience)
                try:
                    answer = await self._sent(at, path, type, params, weight, window)
                except SourceError as error:
                    last = attempt >= self._attempts
                    wait = self._after(error, at, request, backoff, last=last, probing=probing)
                else:
                    self._circuit.close()
                    return answer
            finally:
                if probing:
                    self._circuit.release()
            if wait:
                await self._clock.sleep(wait)
        raise AssertionError("unreachable: the loop ends by returning or raising")

    async def _sent(
        self, at: int, path: str, type: type[T], params: Mapping[str, str | int] | None, weight: int, window: int
    ) -> T:
        """One attempt at the address number ``at``, counted by its outcome."""
        used: list[int] = []

        def heard(status: int, headers: Mapping[str, str]) -> None:
            told = headers.get(USED_WEIGHT, "")
            if told.isascii() and told.isdigit() and len(told) < 10:
                used.append(int(told))

        outcome = "cancelled"
        try:
            if at not in self._clients:
                self._clients[at] = JsonClient(self._urls[at], timeout=self._timeout, headers=self._headers)
            answer = await self._clients[at].get(path, type, params, on_answer=heard)
            outcome = "ok"
            return answer
        except SourceError as error:
            outcome = _outcome(error)
            raise
        finally:
            self._budgets[at].answered(weight, window, self._clock, used[0] if used else None)
            self._count(at, outcome)

    def _after(
        self, error: SourceError, at: int, request: str, backoff: Backoff, *, last: bool, probing: bool
    ) -> float:
        """Draw the conclusions of a failure: seconds until the next attempt, or raises when there is none."""
        status: int = getattr(error, "status", 0)
        retry_after: float | None = getattr(error, "retry_after", None)
        if status in (418, 429):
            wait = backoff.delay(UNTOLD_WAIT if retry_after is None else retry_after)
            until = self._clock.now() + int(wait * 1e9)
            self._budgets[at].block(until, status)
            self._circuit.open(error, until=until)
            if last or wait > self._patience:
                raise error
            return 0.0  # the circuit holds the next attempt back
        if status == 451:
            return self._elsewhere(error, at)
        if isinstance(error, Disconnected) or status >= 500 or status == 408:
            wait = backoff.delay(retry_after)
            if last or probing or wait > self._patience:
                self._circuit.open(error)
                self._move(at)
                raise error
            return wait
        if status == 403:
            self._forbid(request)
        self._circuit.close()
        raise error

    def _elsewhere(self, error: SourceError, at: int) -> float:
        """The venue does not serve this region from address ``at``: go on at one that was not tried, or raise."""
        self._barred.add(at)
        if len(self._barred) < len(self._urls):
            self._move(at)
            return 0.0
        self._barred.clear()
        advice = f"the venue does not serve this region: set {self._setting} to an address you may use"
        told = VenueRefused(f"{error}; {advice}", status=451)
        self._circuit.open(told)
        self._current = 0
        raise told from error

    def _move(self, at: int) -> None:
        """Ask the next address from now on, unless another request has moved already."""
        if at == self._current:
            count = len(self._urls)
            following = ((at + step) % count for step in range(1, count + 1))
            self._current = next((each for each in following if each not in self._barred), at)
            self._moved = self._clock.now()

    def _home(self) -> int:
        """The address to ask: after some time on a fallback, the first one again."""
        first = next(each for each in range(len(self._urls)) if each not in self._barred)
        if self._current != first and self._clock.now() - self._moved > HOME_AFTER:
            self._current = first
        return self._current

    def _forbid(self, request: str) -> None:
        self._forbidden[request] = self._clock.now() + FORBIDDEN_FOR
        if len(self._forbidden) > FORBIDDEN_KEPT:
            self._forbidden.popitem(last=False)

    def _withhold(self, request: str) -> None:
        """Raise for a URL the venue's firewall turned down a short time ago: repeating it earns a ban."""
        wait = self._forbidden.get(request, 0) - self._clock.now()
        if wait > 0:
            self._count(self._current, "withheld")
            raise VenueRefused(
                f"{self.host} turned this request down with HTTP 403; it is not sent again for {wait // 10**9} s",
                status=403,
                retry_after=wait / 1e9,
            )
        self._forbidden.pop(request, None)

    def _count(self, at: int, outcome: str) -> None:
        self.counters[outcome] += 1
        metrics.venue_requests.labels(self._budgets[at].host, outcome).inc()

    def _tell(self, state: CircuitState | None) -> None:
        for host in {budget.host for budget in self._budgets}:
            tell(host, self._circuit, state)

    def _changed(self, change: CircuitChange) -> None:
        self._tell(change.state)
        if self._on_state is not None:
            self._on_state(change)


def _outcome(error: SourceError) -> str:
    if isinstance(error, Disconnected):
        return "unreachable"
    if isinstance(error, VenueRefused):
        return _OUTCOMES.get(error.status, "error" if error.status >= 500 else "rejected")
    return "shape"
