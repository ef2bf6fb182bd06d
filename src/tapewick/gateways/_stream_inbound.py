"""What arrives on a WebSocket, from frames to whole messages: joined, inflated, bounded, checked."""

from __future__ import annotations

from picows import WSFrame, WSMsgType

from tapewick.deflate import TooBig, unpack

__all__ = ["Inbound", "Wrong"]

RATIO = 10  # a compressed message may inflate to this many times the bound of a frame


class Wrong(Exception):
    """The peer broke the protocol: the close ``code`` that says so."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Inbound:
    """Makes messages of one connection's data frames. A message's fragments have together the bound of one frame,
    ``most`` bytes. ``inflates``: compression was negotiated."""

    def __init__(self, most: int, *, inflates: bool) -> None:
        self._most, self._inflates = most, inflates
        self._parts: bytearray | None = None
        self._packed = False

    def take(self, frame: WSFrame) -> bytes | None:
        """The message that ``frame`` completes, valid UTF-8; None if it completes none. Raises ``Wrong``."""
        if frame.msg_type == WSMsgType.BINARY:
            raise Wrong(1003, "requests are text frames")
        self._check_bits(frame)
        payload = frame.get_payload_as_bytes()
        if self._parts is None and frame.fin:
            return self._whole(payload)
        parts = self._parts = self._parts if self._parts is not None else bytearray()
        parts += payload
        if len(parts) > self._most:
            raise Wrong(1009, f"over {self._most} bytes")
        if not frame.fin:
            return None
        self._parts = None
        return self._whole(bytes(parts))

    def _check_bits(self, frame: WSFrame) -> None:
        continues = frame.msg_type == WSMsgType.CONTINUATION
        if continues != (self._parts is not None):
            raise Wrong(1002, "fragments out of order")
        if frame.rsv2 or frame.rsv3 or (frame.rsv1 and (continues or not self._inflates)):
            raise Wrong(1002, "no extension was negotiated that would set this bit")
        if not continues:
            self._packed = bool(frame.rsv1)

    def _whole(self, message: bytes) -> bytes:
        try:
            if self._packed:
                message = unpack(message, RATIO * self._most)
            message.decode()
        except TooBig as error:
            raise Wrong(1009, str(error)) from None
        except ValueError as error:  # UnicodeDecodeError is one
            raise Wrong(1007, "not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)) from None
        return message
