"""A table as people see it: its ends, its columns, what to write instead of ``table[0]``."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tapewick._client_fields import milliseconds, nanoseconds
from tapewick.client import Table, Trade
from tapewick.errors import BadRequest, ModelError
from tapewick.formats.table import Field

T0 = 1_723_161_600_000_000_000  # 2024-08-09
FIELDS = (
    Field("instrument", "text"),
    Field("seq", "int"),
    Field("ts_event", "time"),
    Field("price", "decimal", 2),
    Field("side", "text"),
)


def table(count: int, instrument: str = "sim:BTCUSDT") -> Table[Trade]:
    rows = [
        Trade(instrument, n, n, T0 + n * 10**6, T0, Decimal("1E+3") + n, Decimal(1), "buy") for n in range(1, count + 1)
    ]
    return Table(FIELDS, rows, position="E:9")


def test_a_long_table_shows_its_ends() -> None:
    lines = repr(table(2000)).splitlines()
    assert lines[0] == "<Table of 2,000 rows>" and len(lines) == 13
    assert lines[1].split() == ["instrument", "seq", "ts_event", "price", "side"]
    assert [line.split()[1] for line in lines[2:7]] == ["1", "2", "3", "4", "5"]
    assert set(lines[7]) == {"…", " "}
    assert [line.split()[1] for line in lines[8:]] == ["1996", "1997", "1998", "1999", "2000"]
    assert lines[2].split() == ["sim:BTCUSDT", "1", "2024-08-09", "00:00:00.001", "1001", "buy"]


@pytest.mark.parametrize("count", [0, 1, 10, 11])
def test_a_short_table_is_shown_whole(count: int) -> None:
    text, html = repr(table(count)), table(count)._repr_html_()
    assert ("…" in text) == ("…" in html) == (count > 10)
    assert text.startswith(f"<Table of {count} row{'' if count == 1 else 's'}>") and "price" in text
    assert html.count("<tr>") == 1 + min(count, 11) and "price" in html


def test_columns_that_do_not_fit_are_named() -> None:
    lines = repr(table(2, "x" * 119)).splitlines()
    assert lines[-1] == "and seq, ts_event, price, side" and max(map(len, lines)) <= 120


def test_html_is_escaped() -> None:
    html = table(1, "<script>")._repr_html_()
    assert "<script>" not in html and "&lt;script&gt;" in html


def test_head_is_a_table_without_a_position() -> None:
    head = table(20).head(3)
    assert head["seq"].tolist() == [1, 2, 3] and head.position == "" and list(head.fields) == list(table(1).fields)
    assert len(table(20).head()) == 5 and len(table(2).head(9)) == 2
    with pytest.raises(ModelError, match="at least 0"):
        table(2).head(-1)


def test_a_number_is_no_column() -> None:
    with pytest.raises(ModelError, match=r"table\['instrument'\], not by 0; rows are in table\.rows\[0\]"):
        table(2)[0]  # type: ignore[index]
    with pytest.raises(ModelError, match=r"table\.head\(\)"):
        table(2)[:5]  # type: ignore[index]


@pytest.mark.parametrize(
    ("number", "unit"), [(T0 // 10**9, "seconds"), (T0 // 10**6, "ms"), (T0 // 1000, "µs"), (1, "seconds")]
)
def test_a_time_in_another_unit_is_refused(number: int, unit: str) -> None:
    for read in (milliseconds, nanoseconds):
        with pytest.raises(BadRequest, match=f"ns expected; this looks like {unit}"):
            read(number)


def test_times_of_every_kind_are_the_same_moment() -> None:
    assert nanoseconds("2024-08-09") == nanoseconds(T0) == T0
    assert nanoseconds(0) == 0 == milliseconds("1970-01-01") and nanoseconds(None) is None
    assert milliseconds(T0 + 1) == milliseconds("2024-08-09T00:00:00.000001Z") == T0 // 10**6 + 1
