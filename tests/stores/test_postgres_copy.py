"""COPY's binary rows: what is encoded is what the server reads, byte for byte, and comes back the same."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapewick.errors import StoreError
from tapewick.stores._postgres_copy import MESSAGE, Layout, messages
from tapewick.stores._postgres_rows import CANDLES, TRADES

KINDS = {"a": "i2", "b": "i8", "c": "u8", "d": "?", "e": "i4"}
PLAIN = Layout(KINDS)


def bounds(kind: str) -> st.SearchStrategy[int]:
    if kind == "?":
        return st.integers(0, 1)
    info = np.iinfo(kind)
    return st.integers(int(info.min), int(info.max))


rows = st.lists(st.tuples(*(bounds(kind) for kind in KINDS.values())), max_size=30)


def by_hand(table: list[tuple[int, ...]]) -> bytes:
    """The format as its documentation tells it, value by value."""
    codes = {"i2": "h", "i4": "i", "i8": "q", "u8": "Q", "?": "?"}
    out = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
    for values in table:
        out += struct.pack(">h", len(KINDS))
        for kind, value in zip(KINDS.values(), values, strict=True):
            packed = struct.pack(">" + codes[kind], value)
            out += struct.pack(">i", len(packed)) + packed
    return out + struct.pack(">h", -1)


@given(rows)
def test_rows_are_encoded_as_documented_and_decoded_to_the_same(table: list[tuple[int, ...]]) -> None:
    columns = {
        name: np.array([values[k] for values in table], dtype=bool if kind == "?" else kind)
        for k, (name, kind) in enumerate(KINDS.items())
    }
    encoded = b"".join(PLAIN.encode(columns, len(table)))
    assert encoded == by_hand(table)
    decoded = PLAIN.decode(encoded)
    assert [tuple(int(row[name]) for name in KINDS) for row in decoded] == table


@pytest.mark.parametrize(
    "harm",
    [lambda b: b[:-1], lambda b: b[1:], lambda b: b[:-2] + b"\0\0", lambda b: b"", lambda b: b[:21] + b"x" + b[21:]],
)
def test_another_layout_is_refused(harm: object) -> None:
    whole = by_hand([(1, 2, 3, 1, 5)])
    with pytest.raises(StoreError, match="layout"):
        PLAIN.decode(harm(whole))  # type: ignore[operator]
    other = Layout({**KINDS, "f": "i4"})
    with pytest.raises(StoreError, match="layout"):
        other.decode(whole * 1)


@given(st.integers(0, 5))
async def test_long_copies_go_in_several_messages(more: int) -> None:
    width = PLAIN.row.itemsize
    count = 3 * (MESSAGE // width) + more
    columns = {name: np.arange(count).astype(bool if kind == "?" else kind) for name, kind in KINDS.items()}
    parts = [part async for part in messages(PLAIN.encode(columns, count))]
    assert len(parts) == (4 if more else 3)
    assert max(map(len, parts)) <= MESSAGE + 21
    decoded = PLAIN.decode(b"".join(parts))
    assert all((decoded[name] == columns[name]).all() for name in KINDS)


def test_the_tables_rows_have_their_width() -> None:
    assert TRADES.row.itemsize == 2 + 11 * 4 + 7 * 8 + 2 * 4 + 2 + 1
    assert CANDLES.row.itemsize == 2 + 29 * 4 + 21 * 8 + 2 * 4 + 6 * 2
