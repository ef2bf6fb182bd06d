"""Trades as records on disk, and records as batches that are worth bringing to the store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from typing import Any, NamedTuple

import numpy as np
import structlog

from tapewick.errors import WireError
from tapewick.model import Instrument, TradeBatch
from tapewick.wire import decode, encode

__all__ = ["MOST", "Kept", "joined", "packed", "readable", "unpacked"]

log = structlog.get_logger()

MOST = 5000  # trades that are brought to the store at once
COLUMNS = ("trade_id", "first_id", "count", "ts_event", "ts_recv", "price", "size", "side", "key")


class Kept(NamedTuple):
    """A record and what it holds."""

    record: bytes
    instrument: Instrument
    batch: TradeBatch


def packed(instrument: Instrument, batch: TradeBatch) -> bytes:
    """A batch and its instrument as one record."""
    head = encode(instrument)
    return len(head).to_bytes(4, "little") + head + encode(batch)


def unpacked(record: bytes) -> Kept:
    """What ``packed`` made. Raises ``WireError``."""
    size = int.from_bytes(record[:4], "little")
    instrument, batch = decode(record[4 : 4 + size]), decode(record[4 + size :])
    if not isinstance(instrument, Instrument) or not isinstance(batch, TradeBatch):
        raise WireError("a record of the spool holds no trades")
    return Kept(record, instrument, batch)


def readable(records: Sequence[bytes]) -> list[Kept]:
    """Those of ``records`` that this version knows; of others the log tells."""
    found = []
    for record in records:
        try:
            found.append(unpacked(record))
        except WireError as error:
            log.error("a record of the spool cannot be read: its segment is kept aside", cause=str(error))
    return found


def joined(records: Sequence[Kept]) -> list[tuple[Instrument, list[TradeBatch]]]:
    """Per instrument its batches in order, each trade once, as few and large as may be."""
    found: dict[str, tuple[Instrument, list[TradeBatch]]] = {}
    for _, instrument, batch in records:
        found.setdefault(instrument.id, (instrument, []))[1].append(batch)
    return [(instrument, list(_parts(batches))) for instrument, batches in found.values()]


def _parts(batches: Sequence[TradeBatch]) -> Iterator[TradeBatch]:
    group: list[TradeBatch] = []
    for batch in batches:
        alike = bool(group) and _kind(group[0]) == _kind(batch)
        if group and not (alike and sum(map(len, group)) + len(batch) <= MOST):
            yield _join(group)
            group = []
        group.append(batch)
    if group:
        yield _join(group)


def _kind(batch: TradeBatch) -> tuple[int, int, bool]:
    return batch.price_scale, batch.size_scale, batch.key is None


def _join(batches: Sequence[TradeBatch]) -> TradeBatch:
    names = [field.name for field in fields(batches[0]) if field.name in COLUMNS]
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(batch, name) for batch in batches])
        for name in names
        if getattr(batches[0], name) is not None
    }
    whole = replace(batches[0], **columns)
    _, first = np.unique(whole.names, axis=0, return_index=True)
    return whole if len(first) == len(whole) else whole.select(np.sort(first))
