"""Import of venue trade files: the trades a venue or a recorder wrote down, with no clock of their own."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path

from tapewick.errors import BadPayload, ConfigError
from tapewick.model import Event, Instrument, TradeBatch
from tapewick.sources._files import Rejects
from tapewick.sources._trade_csv import CsvTrades
from tapewick.sources._trade_json import JsonTrades

__all__ = ["FORMATS", "TradeFileSource", "threaded"]

FORMATS = ("kraken-trades", "binance-trades-csv", "binance-aggtrades-json")


class TradeFileSource:
    """Trades of one instrument from files of one declared format, plain, ``.gz`` or ``.zst``.

    While it runs, ``lines`` (CSV lines or JSON rows) = ``trades`` + all of ``others`` + all of ``rejects``;
    ``examples`` are the places of the first rejects. Rows that cannot be parsed never stop an import.
    ``events`` raises ``BadPayload`` at its end, naming every file that was damaged or of another format.
    """

    name = "import"
    pull = True

    def __init__(self, files: Sequence[Path], *, format: str, instrument: str) -> None:
        if format not in FORMATS:
            raise ConfigError(f"unknown trade file format {format!r}; use one of {' '.join(FORMATS)}")
        if not files:
            raise ConfigError("nothing to import; give at least one file")
        venue, colon, symbol = instrument.partition(":")
        if not (venue and colon and symbol):
            raise ConfigError(f"{instrument!r} is no instrument; write venue:symbol, such as binance:BTCUSDT")
        self.others: Counter[str] = Counter()
        self._rejects = Rejects()
        self._files = list(files)
        self._reader = (
            CsvTrades(instrument, self.others, self._rejects)
            if format == "binance-trades-csv"
            else JsonTrades(instrument, format, self._rejects)
        )
        self._aggregates = format == "binance-aggtrades-json"

    @property
    def lines(self) -> int:
        """CSV lines or JSON rows read so far."""
        return self._reader.lines

    @property
    def trades(self) -> int:
        """Trades yielded so far."""
        return self._reader.trades

    @property
    def rejects(self) -> Counter[str]:
        """Rows that could not be parsed, by reason."""
        return self._rejects.counts

    @property
    def examples(self) -> list[str]:
        """``file:line: reason`` of the first rejected rows."""
        return self._rejects.examples

    @property
    def bytes_read(self) -> int:
        """Stored bytes consumed so far."""
        return self._reader.bytes_read

    @property
    def bytes_total(self) -> int:
        """Stored bytes of all files; those that cannot be opened count 0."""
        return sum(path.stat().st_size for path in self._files if path.is_file())

    async def events(self) -> AsyncGenerator[Event, None]:
        """The instrument, then its trades, file by file in the order given."""
        announced = False
        faults: list[str] = []
        for path in self._files:
            async for batch in threaded(self._reader.read(path), faults):
                if not announced and (len(batch) or batch.covers):
                    announced = True
                    yield self._instrument(batch)
                if announced:
                    yield batch
        if faults:
            raise BadPayload("; ".join(faults))

    def _instrument(self, batch: TradeBatch) -> Instrument:
        venue, _, symbol = batch.instrument.partition(":")
        return Instrument(
            id=batch.instrument,
            venue=venue,
            symbol=symbol,
            price_scale=batch.price_scale,
            size_scale=batch.size_scale,
            granularity="agg" if self._aggregates else "raw",
        )


async def threaded(batches: Iterator[TradeBatch], faults: list[str]) -> AsyncGenerator[TradeBatch]:
    """What an iterator that blocks yields, made in threads; a ``BadPayload`` ends it and is noted."""
    loop = asyncio.get_running_loop()
    while True:
        made = loop.run_in_executor(None, next, batches, None)
        try:
            batch = await asyncio.shield(made)
        except BadPayload as error:
            faults.append(str(error))
            return
        except asyncio.CancelledError:
            await asyncio.wait([made])  # the thread still uses the iterator
            raise
        if batch is None:
            return
        yield batch
