"""What is told of a venue that refuses or cannot be reached, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from tapewick.clock import Clock
from tapewick.errors import SourceError, VenueRefused
from tapewick.model import Health
from tapewick.net.venue_client import CircuitChange

__all__ = ["Reports", "advised"]

_ADDRESSES = "set BINANCE_BASE_URL and BINANCE_WEBSOCKET_BASE_URL to an address you may use"
_REMEDIES = {
    403: f"a firewall of the venue turns this machine away: {_ADDRESSES}, or try: tapewick demo",
    418: "this address is banned for too many requests: waiting as told",
    429: "too many requests: waiting as told",
    451: f"the venue does not serve this region: {_ADDRESSES}, or try: tapewick demo",
}
_UNREACHABLE = "trying again; check the network, BINANCE_BASE_URL and BINANCE_WEBSOCKET_BASE_URL, or try: tapewick demo"


def advised(detail: str, status: int) -> str:
    """``detail`` of a failure with HTTP ``status`` (0: no answer), and what to do about it."""
    advice = _REMEDIES.get(status) or ("the venue has a fault: trying again" if status >= 500 else _UNREACHABLE)
    return f"{detail}; {advice}"


class Reports:
    """Puts what requests run into in line as ``Health``; the same is not said twice running.

    Requests and streams can fail apart. Until data flow (``flowing``) a failed request is the source's own
    state; after that it is told under the name ``<source> REST``.
    """

    def __init__(self, source: str, clock: Clock, put: Callable[[Any], None]) -> None:
        self._source, self._clock, self._put = source, clock, put
        self._said: tuple[str, str] = ("", "")
        self.flowing = False

    def failed(self, error: SourceError) -> None:
        """A request that was needed to go on got no good answer."""
        state: Literal["refused", "disconnected"] = "refused" if isinstance(error, VenueRefused) else "disconnected"
        detail = advised(str(error), getattr(error, "status", 0))
        if (state, detail) != self._said:
            self._said = (state, detail)
            name = f"{self._source} REST" if self.flowing else self._source
            self._put(Health(source=name, state=state, ts=self._clock.now(), detail=detail))

    def unlisted(self, symbol: str) -> None:
        """The venue does not have a symbol that was asked for at run time."""
        detail = f"{self._source} does not list {symbol}; write symbols as the venue does (BTCUSDT)"
        id = f"{self._source}:{symbol}"
        self._put(Health(source=self._source, state="refused", ts=self._clock.now(), detail=detail, instrument=id))

    def circuit(self, change: CircuitChange) -> None:
        """Requests stopped, or are answered again."""
        if change.state == "half_open" or not self.flowing:
            return
        up = change.state == "closed"
        state: Literal["connected", "refused", "disconnected"]
        state = "connected" if up else ("refused" if change.status else "disconnected")
        detail = "requests are answered" if up else advised(change.detail, change.status)
        self._put(Health(source=f"{self._source} REST", state=state, ts=change.ts, detail=detail))
