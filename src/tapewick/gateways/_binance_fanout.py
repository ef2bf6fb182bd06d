"""One stream to many sockets: encoded once per time unit, framed once per framing, nobody waited for.

Events (trades, book differences, closed bars) are all delivered or the connection ends, since the protocol
has no way to tell of a loss. Values (tickers, open bars, best prices) are conflated, newest per stream.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol

import msgspec

from tapewick import metrics
from tapewick.framing import ws_text
from tapewick.gateways._binance_query import Unit
from tapewick.outbox import Outbox

__all__ = ["Encode", "Form", "Reader", "Stream"]

Encode = Callable[[Unit], Sequence[bytes]]
"""Payloads in one time unit."""


class Form(NamedTuple):
    """How a socket wants its frames: wrapped with the stream's name, and in which time unit."""

    combined: bool
    unit: Unit


class Reader(Protocol):
    """A socket as streams see it."""

    form: Form
    outbox: Outbox

    def close(self, code: int, reason: str) -> None: ...


class Stream:
    """One named stream and who reads it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._prefix = b'{"stream":%s,"data":' % msgspec.json.encode(name)
        self._groups: dict[Form, set[Reader]] = {}

    @property
    def readers(self) -> list[Reader]:
        return [reader for group in self._groups.values() for reader in group]

    def join(self, reader: Reader) -> None:
        self._groups.setdefault(reader.form, set()).add(reader)

    def leave(self, reader: Reader) -> None:
        for form, group in list(self._groups.items()):
            group.discard(reader)
            if not group:
                del self._groups[form]
        reader.outbox.forget(self)

    def events(self, encode: Encode) -> None:
        """Send what must not be lost."""
        for data, group in self._framed(encode):
            for reader in tuple(group):
                reader.outbox.forget(self)  # an older value that still waits is no news any more
                if not reader.outbox.event(data):
                    metrics.slow_closes.inc()
                    reader.close(1008, "slow consumer")

    def value(self, encode: Encode) -> None:
        """Send what a newer value replaces."""
        for data, group in self._framed(encode):
            for reader in group:
                reader.outbox.latest(self, data)

    def end(self, reason: str) -> None:
        """Close every socket that reads this stream: what comes next does not continue what they have."""
        for reader in self.readers:
            reader.close(1012, reason)

    def _framed(self, encode: Encode) -> list[tuple[bytes, set[Reader]]]:
        payloads: dict[Unit, Sequence[bytes]] = {}
        framed = []
        for form, group in self._groups.items():
            if form.unit not in payloads:
                payloads[form.unit] = encode(form.unit)
                metrics.frames.inc(len(payloads[form.unit]))
            texts = payloads[form.unit]
            if form.combined:
                texts = [b"%b%b}" % (self._prefix, text) for text in texts]
            data = b"".join(map(ws_text, texts))
            metrics.wire_bytes.inc(len(data) * len(group))
            framed.append((data, group))
        return framed

    # What an outbox may ask of a place; these streams cannot be resumed.

    def text_position(self, offset: int) -> str:
        return str(offset)

    def rejoin(self, outbox: Outbox, offset: int) -> Awaitable[None]:
        raise NotImplementedError(f"{self.name} cannot be resumed")
