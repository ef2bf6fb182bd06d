"""One WebSocket connection of a client to a tapewick server, from its upgrade to its end.

Frames wait here until they are asked for. Above ``HELD_BYTES`` the socket is read no further, so a
reader that pauses for long is closed by the server with 4008 and resumes: memory stays bounded and nothing is lost.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Mapping

from picows import WSError, WSFrame, WSInvalidStatusError, WSListener, WSMsgType, WSTransport, ws_connect
from python_socks import ProxyError

from tapewick._client_address import advice
from tapewick._client_rest import refusal
from tapewick.errors import ApiError, Disconnected, SourceError
from tapewick.net.address import proxy_for, shown

__all__ = ["HELD_BYTES", "Link", "dial"]

HELD_BYTES = 4 << 20
FRAME_CAP = 64 << 20  # a replay sends up to 10 000 rows in one frame
FRAME_COST = 48  # bytes a frame costs beside its text

# Every failure reaches who reads the link; the library's own log lines would repeat it.
_quiet = logging.getLogger("tapewick.client.picows")
_quiet.setLevel(logging.CRITICAL + 1)


class Link(WSListener):
    """``receive`` until it returns nothing; then ``code``, ``reason`` and ``cause`` tell why it ended."""

    def __init__(self) -> None:
        self._frames: list[bytes] = []
        self._parts: list[bytes] = []
        self._size = 0
        self._paused = self._closing = self._over = False
        self._news = asyncio.Event()
        self._transport: WSTransport | None = None
        self.code = 0
        self.reason = ""
        self.cause = "the server went away"

    @property
    def opened(self) -> bool:
        """Whether the handshake came to its end."""
        return self._transport is not None

    def send(self, message: bytes) -> None:
        """Send a text; nothing if the connection has ended."""
        if self._transport is not None and not self._transport.is_disconnected:
            self._transport.send(WSMsgType.TEXT, message)

    async def receive(self, idle: float) -> list[bytes]:
        """The frames that came since the last call, at least one; none once the connection has ended.

        It ends, too, after ``idle`` seconds without any frame or ping. Cancelling this loses no frame.
        """
        while not self._frames and not self._over:
            self._news.clear()
            try:
                async with asyncio.timeout(idle):
                    await self._news.wait()
            except TimeoutError:
                self.cause = f"silent for {idle:g} s, neither a frame nor a ping"
                self.close(at_once=True)
                return []
        frames, self._frames, self._size = self._frames, [], 0
        if self._paused and self._transport is not None and not self._over:
            self._paused = False
            self._transport.underlying_transport.resume_reading()
        return frames

    def close(self, *, at_once: bool = False) -> None:
        """End the connection: with a close frame, or without waiting for the server."""
        self._closing = True
        if self._transport is not None and not self._transport.is_disconnected:
            if not at_once:
                self._transport.send_close(1000)  # type: ignore[arg-type]
            self._transport.disconnect(graceful=not at_once)

    # What the library calls.

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        if self._closing:  # who waited for the handshake was cancelled meanwhile
            transport.disconnect(graceful=False)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if kind == WSMsgType.PING:
            transport.send_pong(frame.get_payload_as_bytes())
        elif kind == WSMsgType.CLOSE:
            code, reason = frame.get_close_code(), frame.get_close_reason() or ""
            self.code = int(code) if code else 1005  # type: ignore[call-overload]
            self.reason = "".join(char for char in reason if char.isprintable())
            self.cause = f"the server closed with {self.code} {self.reason}".rstrip()
            transport.send_close(frame.get_close_code())
            transport.disconnect()
        elif kind != WSMsgType.PONG:
            self._take(frame.get_payload_as_bytes(), frame.fin)
        self._news.set()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._over = True
        self._news.set()

    def _take(self, payload: bytes, last: bool) -> None:
        self._size += len(payload) + FRAME_COST
        self._parts.append(payload)
        if last:
            self._frames.append(self._parts[0] if len(self._parts) == 1 else b"".join(self._parts))
            self._parts.clear()
        if self._size > HELD_BYTES and not self._paused and self._frames and self._transport is not None:
            self._paused = True
            self._transport.underlying_transport.pause_reading()


async def dial(url: str, *, within: float, headers: Mapping[str, str], tls: ssl.SSLContext | None) -> Link:
    """A connection to the ``ws`` or ``wss`` address ``url``, within so many seconds.

    Raises ``Disconnected`` when there is no answer, as ``refusal`` for an HTTP status other than 101.
    """
    link = Link()
    try:
        async with asyncio.timeout(within):
            await ws_connect(
                lambda request, response: link,
                url,
                ssl_context=(tls or ssl.create_default_context()) if url.startswith("wss") else None,
                websocket_handshake_timeout=within,
                enable_auto_pong=False,  # pings must reach on_ws_frame: they are signs of life
                max_frame_size=FRAME_CAP,
                max_redirects=0,
                proxy=proxy_for(url),
                logger_name=_quiet,
                extra_headers=dict(headers),
            )
    except WSInvalidStatusError as error:
        raise _refusal(url, error) from error
    except TimeoutError as error:
        raise Disconnected(f"{shown(url)} did not answer within {within:g} s") from error
    except (WSError, OSError, ProxyError) as error:
        cause = str(error) or type(error).__name__
        raise Disconnected(f"{shown(url)} cannot be reached: {cause}; {advice(url, cause)}") from error
    except asyncio.CancelledError:
        link.close(at_once=True)
        raise
    if not link.opened:
        raise Disconnected(f"{shown(url)} closed the connection during the handshake; {advice(url, answered=True)}")
    return link


def _refusal(url: str, error: WSInvalidStatusError) -> ApiError | SourceError:
    response = error.response
    assert response is not None  # this kind of error always carries it
    wait = response.headers.get("Retry-After")
    return refusal(shown(url), int(response.status), bytes(error.raw_body or b""), wait)
