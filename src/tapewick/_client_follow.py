"""What one channel of a stream has seen: drops what came before, finds what is missing, tells where to resume."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from tapewick._client_frames import Frame, Item, Rows, Skip, StreamGap, offset_of

__all__ = ["Followed", "Hole"]


class Hole(Exception):  # no error: the stream asks again and the reader never sees it
    """Records before this frame have not come: resume from the last position."""


class _Head(msgspec.Struct):
    open_time: int | str  # ms, or ns as text
    pos: int


_head = msgspec.json.Decoder(_Head).decode


@dataclass(slots=True)
class Followed:
    """One channel. ``position``: everything up to it has been taken. ``opening``: the address of the next page
    of history, None once live. ``options``: as the server takes them, without ``since``."""

    name: str
    options: dict[str, Any]
    position: str = ""
    opening: str | None = None
    since: dict[str, int] | None = None
    accepted: bool = False
    _refused: bool = False
    _doubted: str = "-"
    _shown: set[tuple[int | str, int]] = field(default_factory=set)

    @property
    def kind(self) -> str:
        """``trade``, ``candle``, …"""
        return self.name.partition("@")[0]

    def wish(self) -> dict[str, Any]:
        """How to subscribe so that nothing is missed and nothing comes twice."""
        since = self.position or self.since
        return {"ch": self.name, **self.options, **({"since": since} if since else {})}

    def admitted(self, position: str, *, recovered: bool) -> None:
        """The server's answer to ``wish``."""
        self.accepted = True
        if self.position:
            self._refused = not recovered
        elif self.options.get("snapshot") == 0 and not self.since:
            self.position = position

    def history(self, rows: list[msgspec.Raw], position: str, following: str | None) -> Rows:
        """A page of stored rows: trades go on behind the last page, candles behind what the first one stood for."""
        self.opening = following
        if self.kind == "trade" or not self.position:
            self.position = position
        if self.kind == "candle":
            self._remember([_head(row) for row in rows])
        return Rows(self.name, "history", "" if following else self.position, rows)

    def take(self, frame: Frame) -> list[Item]:
        """What of ``frame`` is news to the reader. Raises ``Hole``."""
        made: list[Item] = []
        if frame.type == "gap":
            self._refused = False
            return [self._gap(frame.from_, frame.to, frame.reason, frame.count)]
        if self._refused and frame.type in ("snapshot", "event"):  # a server that forgot to tell
            self._refused = False
            made.append(self._gap(self.position, frame.position, "not_recovered", None))
        if frame.type == "snapshot":
            self.position, self.since = frame.position, None
            self._shown.clear()
            made.append(self._rows(frame, frame.data))
        elif frame.type == "update":
            made.append(self._rows(frame, frame.data))
        elif frame.type == "skip":
            made += self._skip(frame)
        elif frame.type == "event":
            made += self._event(frame)
        return made

    # -- inside ------------------------------------------------------------------------------

    def _gap(self, first: str, last: str, reason: str, count: int | None) -> StreamGap:
        self.position = last if self.options.get("snapshot") == 0 else ""
        self._shown.clear()
        return StreamGap(self.name, first, last, reason, count)

    def _rows(self, frame: Frame, raw: list[msgspec.Raw]) -> Rows:
        position = "" if frame.type == "update" else frame.position
        kind: Any = frame.type
        return Rows(self.name, kind, position, raw, frame.kind, frame.reason, frame.late, frame.ts)

    def _skip(self, frame: Frame) -> list[Item]:
        made, seen = self._missing(frame.from_, frame.to)
        if offset_of(frame.to)[1] <= seen:
            return made
        self.position = frame.to
        return [*made, Skip(self.name, frame.from_, frame.to, frame.count or 0)]

    def _event(self, frame: Frame) -> list[Item]:
        if not frame.position:
            return [self._rows(frame, frame.data)]
        if self.kind == "candle":
            return self._candles(frame)
        made, seen = self._missing(frame.from_ or frame.position, frame.position)
        last = offset_of(frame.position)[1]
        if last <= seen:
            return made
        first = offset_of(frame.from_ or frame.position)[1]
        self.position = frame.position
        return [*made, self._rows(frame, frame.data[max(0, seen + 1 - first) :])]

    def _missing(self, first: str, last: str) -> tuple[list[Item], int]:
        """A gap to tell if the server skips records before ``first`` a second time, and the offset seen so far.

        Raises ``Hole`` the first time: what was lost on the way comes again after a resume.
        """
        epoch, number = offset_of(first)
        if not self.position:
            return [], number - 1
        own, seen = offset_of(self.position)
        if epoch == own or not own:
            if number <= seen + 1:
                return [], seen
        if self._doubted != self.position:
            self._doubted = self.position
            raise Hole
        gap = StreamGap(self.name, self.position, first, "missing", number - seen - 1 if epoch == own else None)
        return [gap], number - 1

    def _candles(self, frame: Frame) -> list[Item]:
        """Rows of a commit share a ``pos``; a connection cut between them brings the whole commit again."""
        epoch, offset = offset_of(frame.position)
        own, seen = offset_of(self.position) if self.position else (epoch, -1)
        if own not in ("", epoch):
            if self._doubted != self.position:
                self._doubted = self.position
                raise Hole
            seen = -1
        heads = [_head(row) for row in frame.data]
        fresh = [
            (head, row)
            for head, row in zip(heads, frame.data, strict=True)
            if head.pos > seen and (head.open_time, head.pos) not in self._shown
        ]
        self.position = frame.position
        self._remember([head for head, _ in fresh])
        self._shown = {(time, pos) for time, pos in self._shown if pos > offset}
        return [self._rows(frame, [row for _, row in fresh])] if fresh else []

    def _remember(self, heads: list[_Head]) -> None:
        """Rows that lie behind the position they were shown with: they will come again after a resume."""
        offset = offset_of(self.position)[1]
        self._shown |= {(head.open_time, head.pos) for head in heads if head.pos > offset}
