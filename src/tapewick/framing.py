"""How a JSON text is put on the wire of a push connection: a WebSocket frame or a server-sent event.

A framing depends on nothing of one reader's own, so what it made serves every reader that has it.
"""

from __future__ import annotations

from typing import Protocol

__all__ = ["Frame", "chunk", "sse", "sse_body", "sse_body_chunk", "sse_chunk", "ws_text"]


class Frame(Protocol):
    """Puts a JSON text into a connection's framing. ``position``: where a reader of its channel stands
    once it has seen it; empty if that does not change."""

    def __call__(self, text: bytes, position: bytes = b"", /) -> bytes: ...


def ws_text(text: bytes, position: bytes = b"", /) -> bytes:
    """A whole, unmasked WebSocket text frame; the text tells its position itself."""
    size = len(text)
    if size < 126:
        return b"\x81%c" % size + text
    if size < 65_536:
        return b"\x81\x7e" + size.to_bytes(2, "big") + text
    return b"\x81\x7f" + size.to_bytes(8, "big") + text


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
