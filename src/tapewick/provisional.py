"""The provisional lane out of the engine: open candles of tapes that took in trades."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from tapewick.engine.tape import Tape
from tapewick.protocols import Bus

__all__ = ["Provisional"]


class Provisional:
    """Announces the open candles of ``tapes`` on ``bus``: of each once per turn of the loop, however many batches that
    turn brought it. Only the newest value counts, so none is kept and none comes late: it is read from the tape when
    it is sent.
    """

    def __init__(self, bus: Bus, tapes: Mapping[str, Tape]) -> None:
        self._bus, self._tapes = bus, tapes
        self._changed: dict[str, None] = {}
        self._soon: asyncio.Handle | None = None

    def changed(self, instrument: str) -> None:
        """This tape took in trades."""
        self._changed[instrument] = None
        if self._soon is None:
            self._soon = asyncio.get_running_loop().call_soon(self._announce)

    def _announce(self) -> None:
        self._soon = None
        changed, self._changed = self._changed, {}
        for instrument in changed:
            tape = self._tapes.get(instrument)  # None: given up meanwhile
            if tape is not None and (live := tape.live()) is not None:
                self._bus.offer("candles", live)
