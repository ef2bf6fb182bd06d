"""How an encoded frame is put on the wire of a push connection: a WebSocket frame or a server-sent event.

A framing depends on nothing of one reader's own, so what it made serves every reader that has it.
"""

from __future__ import annotations

from typing import Protocol

from tapewick.deflate import pack

__all__ = [
    "Frame",
    "chunk",
    "sse",
    "sse_body",
    "sse_body_chunk",
    "sse_chunk",
    "ws_binary",
    "ws_binary_deflated",
    "ws_text",
    "ws_text_deflated",
]

TEXT, BINARY, RSV1 = 0x81, 0x82, 0x40  # whole frames; RSV1 marks a compressed one


class Frame(Protocol):
    """Puts a JSON text (or protobuf message) into a connection's framing. ``position``: where a reader of its
    channel stands once it has seen it; empty if that does not change."""

    def __call__(self, text: bytes, position: bytes = b"", /) -> bytes: ...


def ws_text(text: bytes, position: bytes = b"", /) -> bytes:
    """A whole, unmasked WebSocket text frame; the text tells its position itself."""
    return _ws(TEXT, text)


def ws_binary(message: bytes, position: bytes = b"", /) -> bytes:
    """A whole, unmasked WebSocket binary frame."""
    return _ws(BINARY, message)


def ws_text_deflated(text: bytes, position: bytes = b"", /) -> bytes:
    """``ws_text``, compressed where that pays. It is the same for every reader: no frame refers to another."""
    packed = pack(text)
    return _ws(TEXT, text) if packed is None else _ws(TEXT | RSV1, packed)


def ws_binary_deflated(message: bytes, position: bytes = b"", /) -> bytes:
    """``ws_binary``, compressed where that pays."""
    packed = pack(message)
    return _ws(BINARY, message) if packed is None else _ws(BINARY | RSV1, packed)


def _ws(first: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return b"%c%c" % (first, size) + payload
    if size < 65_536:
        return b"%c\x7e" % first + size.to_bytes(2, "big") + payload
    return b"%c\x7f" % first + size.to_bytes(8, "big") + payload


def chunk(data: bytes) -> bytes:
    """One chunk of an HTTP/1.1 body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def sse(text: bytes, position: bytes = b"", /) -> bytes:
    """A server-sent event named like the text's ``type``, which comes first in every text; its id is ``position``."""
    return b"id: %b\n" % position + sse_body(text) if position else sse_body(text)


def sse_chunk(text: bytes, position: bytes = b"", /) -> bytes:
    """``sse`` as an HTTP chunk."""
    return chunk(sse(text, position))


def sse_body(text: bytes, position: bytes = b"", /) -> bytes:
    """A server-sent event without its id, which is a reader's own and is written before it."""
    return b"event: %b\ndata: %b\n\n" % (text[9 : text.index(b'"', 9)], text)


def sse_body_chunk(text: bytes, position: bytes = b"", /) -> bytes:
    """``sse_body`` as an HTTP chunk."""
    return chunk(sse_body(text))
