"""Who gets the same bytes: one call into the kernel for each, and no Python for each.

A transport spends as much on a small frame as half the kernel's own work for it. So who keeps up is written to
below its transport, all in one native call; what the kernel did not take goes to the transport, as does everything
that is a reader's own. Nothing overtakes: below its transport a reader is written to only while that holds nothing.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from importlib import import_module

from tapewick.engine import ENGINE
from tapewick.outbox import Outbox

__all__ = ["Crowd"]

SendEach = Callable[["array[int]", bytes], list[tuple[int, int]]]

# None where no native engine runs, or none that knows this system's sockets: then every write is its transport's.
_send_each: SendEach | None = (
    getattr(import_module("tapewick.engine._native"), "send_each", None) if ENGINE == "native" else None
)


class Crowd:
    """A set of outboxes; ``send`` writes to those of them that keep up."""

    __slots__ = ("_apart", "_at", "_descriptors", "_direct")

    def __init__(self) -> None:
        self._direct: list[Outbox] = []  # who is written to below its transport
        self._descriptors = array("i")  # theirs
        self._at: dict[Outbox, int] = {}  # where in these two
        self._apart: dict[Outbox, None] = {}  # the others

    def __len__(self) -> int:
        return len(self._direct) + len(self._apart)

    def __iter__(self) -> Iterator[Outbox]:
        yield from self._direct
        yield from self._apart

    def __contains__(self, outbox: object) -> bool:
        return outbox in self._at or outbox in self._apart

    def add(self, outbox: Outbox) -> None:
        """One more; it may be in other crowds too, but is then in none written to below its transport."""
        if outbox in self:
            return
        self._apart[outbox] = None
        outbox.crowds += 1
        if outbox.direct is not None:
            outbox.direct.set_apart(outbox)

    def discard(self, outbox: Outbox) -> None:
        """One less."""
        if outbox in self:
            self.set_apart(outbox)
            del self._apart[outbox]
            outbox.crowds -= 1

    def set_apart(self, outbox: Outbox) -> None:
        """Something is about to be written to this one's transport."""
        at = self._at.pop(outbox, None)
        if at is None:
            return
        last, descriptor = self._direct.pop(), self._descriptors.pop()
        if last is not outbox:
            self._direct[at], self._descriptors[at], self._at[last] = last, descriptor, at
        self._apart[outbox] = None
        outbox.direct = None

    def send(self, data: bytes) -> list[Outbox]:
        """Send framed bytes to who keeps up, and return the rest, to whom nothing has been sent."""
        if _send_each is None:
            return list(self._apart)
        if self._apart:
            for outbox in [outbox for outbox in self._apart if outbox.keeps_up]:
                self._join_direct(outbox)
        rest = list(self._apart)
        short = [(self._direct[at], taken) for at, taken in _send_each(self._descriptors, data)]
        for outbox, taken in short:
            outbox.raw(data[taken:])
        return rest

    def _join_direct(self, outbox: Outbox) -> None:
        del self._apart[outbox]
        self._at[outbox] = len(self._direct)
        self._direct.append(outbox)
        self._descriptors.append(outbox.descriptor)
        outbox.direct = self
