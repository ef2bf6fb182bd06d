"""One kind of records per tape: single trades, or the venue's aggregates of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing

from tapewick.errors import ConfigError
from tapewick.model import Event, Instrument
from tapewick.protocols import Source, Store

__all__ = ["OneGranularity"]

NAMES = {"raw": "single trades", "agg": "aggregate trades"}
REMEDIES = {
    "raw": "bring the venue's single trades (--kind trades, --format binance-trades-csv)",
    "agg": "bring the venue's aggregates (--kind aggTrades, --format binance-aggtrades-json)",
}


class OneGranularity:
    """``source``, on its way to ``store``.

    ``events`` raises ``ConfigError`` at an instrument whose tape holds the other kind: both stand for the same trades
    of the venue, so what the one brings of the other's would only be refused, or leave holes.
    """

    def __init__(self, source: Source, store: Store) -> None:
        self._source, self._store = source, store
        self.name, self.pull = source.name, source.pull

    @property
    def rejects(self) -> Counter[str]:
        """What the source refused itself, by reason."""
        return Counter(getattr(self._source, "rejects", ()))

    async def events(self) -> AsyncGenerator[Event, None]:
        """What the source yields, unchanged."""
        tapes = {one.id: one for one in await self._store.instruments()}
        async with aclosing(self._source.events()) as events:
            async for event in events:
                if isinstance(event, Instrument):
                    _check(tapes.setdefault(event.id, event), event)
                yield event


def _check(tape: Instrument, brought: Instrument) -> None:
    if tape.granularity != brought.granularity:
        raise ConfigError(
            f"the tape of {tape.id} holds {NAMES[tape.granularity]}, and these are {NAMES[brought.granularity]}: a "
            f"tape never holds both. Either {REMEDIES[tape.granularity]}, or name another data folder (--data)"
        )
