"""Rows for the reading commands, straight from a data folder that no server owns."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self

import numpy as np

from tapewick import registry
from tapewick.commands.reading import Chunk, no_folder
from tapewick.config import closest
from tapewick.engine import encode_candles, encode_trades
from tapewick.engine.candles import fold
from tapewick.errors import NotFound
from tapewick.model import Candles, Head, Instrument, TapeState, position
from tapewick.settings import Settings
from tapewick.timeframe import BY_INDEX, DAY, Timeframe, bucket, parse

__all__ = ["FolderReader", "coverage_object"]

PAGE = 50_000  # rows held in memory at once


class FolderReader:
    """``reading.Reader`` on the configured store, opened read-only."""

    def __init__(self, settings: Settings) -> None:
        if settings.store.kind == "duckdb" and not Path(settings.data.dir).is_dir():
            raise no_folder(settings.data.dir)
        self._store = registry.store(settings, read_only=True)

    async def __aenter__(self) -> Self:
        await self._store.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._store.__aexit__(*exc)

    async def candles(
        self, instrument: str, tf: str, *, start: int | None, end: int | None, limit: int
    ) -> AsyncIterator[Chunk]:
        frame, own = parse(tf), await self._instrument(instrument)
        pages = (
            self._seconds(own, start, end, limit) if frame.index == 0 else self._stored(own, frame, start, end, limit)
        )
        async for rows, head in pages:
            lines = encode_candles(own.id, rows, head.price_scale, head.size_scale, lines=True)
            yield lines, position(head.epoch, head.pos)

    async def trades(self, instrument: str, *, since: int | None, limit: int) -> AsyncIterator[Chunk]:
        own = await self._instrument(instrument)
        head = await self._store.head(own.id)
        after = since if since is not None else max(0, head.seq - limit) if limit else 0
        left = limit or head.seq
        while left > 0:
            batch, head = await self._store.trades(own.id, since=after, limit=min(PAGE, left))
            if not len(batch) or batch.seq is None:
                return
            after, left = int(batch.seq[-1]), left - len(batch)
            yield encode_trades(batch, lines=True), position(head.epoch, after)

    async def coverage(self, instrument: str) -> dict[str, Any]:
        own = await self._instrument(instrument)
        return coverage_object(await self._store.coverage(own.id))

    async def instruments(self) -> list[str]:
        return [instrument.id for instrument in await self._store.instruments()]

    async def _instrument(self, id: str) -> Instrument:
        known = {instrument.id: instrument for instrument in await self._store.instruments()}
        if id not in known:
            names = {name.partition(":")[2]: name for name in known}
            meant = f" (did you mean {names[id]}?)" if id in names else closest(id, known)
            raise NotFound(f"no tape of {id!r} in this folder{meant}; it holds {' '.join(known) or 'none'}")
        return known[id]

    async def _stored(
        self, own: Instrument, tf: Timeframe, start: int | None, end: int | None, limit: int
    ) -> AsyncIterator[tuple[Candles, Head]]:
        if start is None and limit:
            yield await self._store.candles(own.id, tf.index, end=end, limit=limit, newest=True)
            return
        left = limit
        while True:
            size = min(PAGE, left) if limit else PAGE
            rows, head = await self._store.candles(own.id, tf.index, start=start, end=end, limit=size)
            if len(rows):
                yield rows, head
                start, left = int(rows["open_time"][-1]) + 1, left - len(rows)
            if len(rows) < size or (limit and not left):
                return

    async def _seconds(
        self, own: Instrument, start: int | None, end: int | None, limit: int
    ) -> AsyncIterator[tuple[Candles, Head]]:
        """``1s`` candles, folded from trades one day at a time."""
        covered = (await self._store.coverage(own.id)).ranges
        if not len(covered):
            return
        first, last = int(covered[:, 2].min()), int(covered[:, 3].max()) + 1
        days = np.arange(bucket(BY_INDEX[14], max(first, start or first)), min(last, end or last), DAY).tolist()
        backwards = start is None and limit
        left, parts = limit, []
        for day in reversed(days) if backwards else days:
            low, high = max(day, start or day), min(day + DAY, end or day + DAY)
            batch, head = await self._store.trades(own.id, start=low, end=high)
            rows = fold(batch, BY_INDEX[0], watermark=head.watermark)
            rows = rows[-left:] if backwards else rows[:left] if limit else rows
            parts.append((rows, head))
            left -= len(rows)
            if not backwards:
                yield parts.pop()
            if limit and left <= 0:
                break
        for part in reversed(parts):
            yield part


def coverage_object(state: TapeState) -> dict[str, Any]:
    """What a tape holds, as every surface prints it."""
    contiguous = state.instrument.id_kind == "contiguous"
    gaps = [gap for gap in state.gaps if gap.state != "closed"]
    return {
        "instrument": state.instrument.id,
        "id_kind": state.instrument.id_kind,
        "trades": state.seq,
        "ranges": state.ranges[:, :2].tolist(),
        "gaps": [
            {
                "left_id": gap.left_id,
                "right_id": gap.right_id,
                "left_ts": gap.times_ms[0],
                "right_ts": gap.times_ms[1],
                "state": gap.state,
                "reason": gap.reason,
                "attempts": gap.attempts,
            }
            for gap in gaps
        ],
        "complete": not gaps if contiguous else None,
        "position": position(state.epoch, state.seq),
    }
