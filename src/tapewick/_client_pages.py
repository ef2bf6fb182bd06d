"""Answers of many rows, page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

import msgspec

from tapewick._client_rest import Rest
from tapewick.errors import BadRequest

__all__ = ["PAGE", "Part", "gathered", "pages"]

PAGE = 1000  # rows asked for at once: larger answers count against the server's quota for costly ones

Name = Literal["candles", "trades"]


@dataclass(slots=True)
class Part:
    """Undecoded rows, ascending, the position they stand for, and whether they are proven whole."""

    rows: list[msgspec.Raw] = field(default_factory=list)
    position: str = ""
    complete: bool | None = None


class _Answer(msgspec.Struct):
    position: str
    candles: list[msgspec.Raw] = []
    trades: list[msgspec.Raw] = []
    complete: bool | None = None
    next: str | None = None


async def pages(
    rest: Rest, name: Name, asked: dict[str, Any], limit: int, *, newest: bool = False
) -> AsyncIterator[Part]:
    """``/v1/NAME`` and the pages after it, none empty, until ``limit`` rows (0: all); ``newest``: older ones follow.

    Raises ``BadRequest`` for a negative ``limit``.
    """
    if limit < 0:
        raise BadRequest(f"limit must be >= 0 (0: all rows), not {limit}", field="limit")
    path, params, left = f"/v1/{name}", asked, limit
    while True:
        size = min(PAGE, left) if limit else PAGE
        answer = await rest.get(path, _Answer, {**params, "limit": size})
        rows = answer.trades or answer.candles
        if rows:
            yield Part(rows, answer.position, answer.complete)
        left -= len(rows)
        if answer.next is None or (limit and left <= 0):
            return
        params = dict(parse_qsl(urlsplit(answer.next).query))


async def gathered(rest: Rest, name: Name, asked: dict[str, Any], limit: int) -> Part:
    """All pages as one: trades stand for the last one's position, candles for the first one's, because those of
    later pages may have changed since; a resume tells these again."""
    newest = name == "candles" and asked.get("start") is None
    parts = [part async for part in pages(rest, name, asked, limit, newest=newest)]
    if not parts:
        answer = await rest.get(f"/v1/{name}", _Answer, {**asked, "limit": 1})
        return Part([], answer.position, answer.complete)
    proofs = {part.complete for part in parts}
    complete = False if False in proofs else None if None in proofs else True
    position = parts[-1].position if name == "trades" else parts[0].position
    ordered = reversed(parts) if newest else parts
    return Part([row for part in ordered for row in part.rows], position, complete)
