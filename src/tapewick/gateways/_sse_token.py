"""The ``id`` of server-sent events: one token that restores every channel of a request.

With one channel that has positions it is the position; with several all of them, behind a checksum of the
channels' names, so that a token of other channels is refused and not misread.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Collection

from tapewick.errors import BadRequest

__all__ = ["Vector"]

_TOKEN = re.compile(r"([0-9a-f]{8})-(.*)")
_PART = re.compile(r"(|[^.:]{1,8}:\d{1,19})", re.ASCII)


class Vector:
    """Where a reader stands in each of ``names``; empty where it has seen nothing yet."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = sorted(names)
        self._index = {name: i for i, name in enumerate(self._names)}
        self._positions = [b""] * len(self._names)
        self._sum = b"%08x-" % zlib.crc32("\n".join(self._names).encode())

    @property
    def single(self) -> bool:
        """Whether a frame's own position is the token: there is no other channel that has one."""
        return len(self._names) <= 1

    def move(self, name: str, position: bytes) -> None:
        """The reader has seen everything of ``name`` up to ``position``."""
        self._positions[self._index[name]] = position

    def token(self) -> bytes:
        """At most 1 KiB; empty while nothing has been seen."""
        if not any(self._positions):
            return b""
        return self._positions[0] if self.single else self._sum + b".".join(self._positions)

    def read(self, token: str, field: str) -> dict[str, str]:
        """The position a token has for each channel, none for those it had nothing of.

        Raises ``BadRequest`` naming ``field`` for a token of other channels, or none at all. That of a single
        channel is not looked into.
        """
        if not self._names:
            raise BadRequest(f"none of these channels has positions; leave {field} out", field=field)
        if self.single:
            return {self._names[0]: token}
        match = _TOKEN.fullmatch(token)
        positions = match[2].split(".") if match else []
        if match is None or not all(map(_PART.fullmatch, positions)):
            raise BadRequest(
                f"{field}={token[:40]!r} is no token of several channels; use an id as it came", field=field
            )
        if match[1].encode() != self._sum[:8] or len(positions) != len(self._names):
            raise BadRequest(
                f"{field} is a token of other channels than these; leave it out to begin anew", field=field
            )
        return {name: position for name, position in zip(self._names, positions, strict=True) if position}
