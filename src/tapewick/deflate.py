"""permessage-deflate (RFC 7692) for WebSockets, without context takeover on either side.

A message refers to no other one, so one compression serves every reader that negotiated it, and nothing is kept
per connection. What that costs in ratio on small messages is the price of flat memory.
"""

from __future__ import annotations

import zlib

__all__ = ["TooBig", "accepted", "pack", "unpack"]

NAME = "permessage-deflate"
NO_TAKEOVER = ("server_no_context_takeover", "client_no_context_takeover")
WINDOWS = ("server_max_window_bits", "client_max_window_bits")
WINDOW, MEMORY, LEVEL = 11, 4, 3
SMALL, LARGE = 128, 262_144  # bytes: shorter messages gain nothing, longer ones would hold up the loop
TAIL = b"\x00\x00\xff\xff"  # ends every deflate block that is flushed; not sent


class TooBig(ValueError):
    """A message inflates to more than it may."""


def accepted(offers: str) -> str | None:
    """The answer to a client's ``Sec-WebSocket-Extensions``; None if it offers nothing that we serve.

    The first offer counts that is well-formed and takes the window that all messages are compressed with.
    """
    for offer in offers.split(","):
        name, *rest = (part.strip() for part in offer.split(";"))
        given = _parameters(rest) if name == NAME else None
        if given is None:
            continue
        answer = "; ".join((NAME, *NO_TAKEOVER))
        return f"{answer}; {WINDOWS[0]}={WINDOW}" if WINDOWS[0] in given else answer
    return None


def _parameters(parts: list[str]) -> set[str] | None:
    """The names of an offer's parameters; None if it must be declined."""
    given: set[str] = set()
    for part in parts:
        name, equals, text = (one.strip() for one in part.partition("="))
        value = text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text
        if name in given:
            return None
        if name in WINDOWS:
            told = bool(equals)
            legal = value.isdecimal() and value.isascii() and len(value) <= 2 and 8 <= int(value) <= 15
            if (told and not legal) or (name == WINDOWS[0] and (not told or int(value) < WINDOW)):
                return None
        elif name not in NO_TAKEOVER or equals:
            return None
        given.add(name)
    return given


def pack(data: bytes) -> bytes | None:
    """``data`` compressed; None where that does not pay."""
    if not SMALL <= len(data) <= LARGE:
        return None
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, -WINDOW, MEMORY)
    packed = packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH)
    return packed[: -len(TAIL)] if len(packed) - len(TAIL) < len(data) else None


def unpack(data: bytes, most: int) -> bytes:
    """What a peer compressed. Raises ``TooBig`` beyond ``most`` bytes, ``ValueError`` for what is no such thing.

    No more than ``most`` bytes are ever made.
    """
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        message = unpacker.decompress(data + TAIL, most + 1)
    except zlib.error as error:
        raise ValueError(f"not a deflated message: {error}") from None
    if len(message) > most:
        raise TooBig(f"over {most} bytes inflated")
    return message
