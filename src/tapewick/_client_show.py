"""A table for people: its first and last rows, as text of a bounded width or as HTML of a notebook cell."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from html import escape
from typing import Any

__all__ = ["ENDS", "as_html", "as_text", "cell"]

ENDS = 5  # rows shown of each end
WIDTH = 120  # characters of a line
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def cell(value: Any, kind: str) -> str:
    """One value: times in UTC with the digits they have, nothing as ``-``."""
    if value is None:
        return "-"
    if kind != "time":
        return format(value, "f") if kind == "decimal" else str(value)
    seconds, rest = divmod(int(value), 10**9)
    try:
        whole = _EPOCH + dt.timedelta(seconds=seconds)
    except OverflowError:
        return str(value)
    return f"{whole:%Y-%m-%d %H:%M:%S}" + (f".{rest:09}".rstrip("0") if rest else "")


def as_text(title: str, names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """``title``, and below it the rows aligned under their names; columns that do not fit are named."""
    shown = _ends(rows)
    columns = [list(column) for column in zip(names, *shown, strict=True)]
    widths = [max(map(len, column)) for column in columns]
    fits, used = 0, 0
    for width in widths:
        used += width + 2
        if fits and used > WIDTH:
            break
        fits += 1
    lines = [
        "  ".join(text.rjust(width) for text, width in zip(line, widths[:fits], strict=True)).rstrip()
        for line in zip(*columns[:fits], strict=True)
    ]
    more = [f"and {', '.join(names[fits:])}"] if fits < len(names) else []
    return "\n".join([title, *(lines if shown else [" ".join(names)]), *(more if shown else [])])


def as_html(title: str, names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same as an HTML table of all columns, everything escaped."""
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join(f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in row)}</tr>" for row in _ends(rows))
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f"<div>{table}<p>{escape(title)}</p></div>"


def _ends(rows: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    """The rows a reader hands over, a line of dots between them if there are more than both ends hold."""
    if len(rows) <= 2 * ENDS:
        return list(rows)
    return [*rows[:ENDS], ["…"] * len(rows[0]), *rows[-ENDS:]]
