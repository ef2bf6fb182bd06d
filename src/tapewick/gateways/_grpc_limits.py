"""Whom a gRPC call is of, and how a refusal for now tells when to ask again."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration

from tapewick.errors import TooManyRequests, Unavailable
from tapewick.gateways._address import FORWARDED, Addresses
from tapewick.gateways._grpc_auth import token_in
from tapewick.gateways._grpc_stream import End
from tapewick.gateways._limiter import Limiter

__all__ = ["Callers", "address_of", "later"]

RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"


class Callers:
    """Tells whose a call is. ``addresses``: of clients and proxies; ``limiter``: how often each may call."""

    def __init__(self, addresses: Addresses, limiter: Limiter) -> None:
        self._addresses, self._limiter = addresses, limiter

    def admit(self, context: Any) -> str:
        """The client's address without its port, as HTTP counts it too, and its call counted.
        Raises ``TooManyRequests``."""
        metadata = context.invocation_metadata()
        address = self._addresses.of(address_of(context), [value for name, value in metadata if name == FORWARDED])
        self._limiter.take(address, token_in(metadata))
        return address


def address_of(context: Any) -> str:
    """The peer's address without its port."""
    peer = unquote(context.peer())
    kind, _, rest = peer.partition(":")
    return rest.rpartition(":")[0].strip("[]") if kind in ("ipv4", "ipv6") else peer


def later(error: TooManyRequests | Unavailable) -> End:
    """A refusal that stands for ``error.retry_after`` seconds: told in words, as ``google.rpc.RetryInfo`` and, for
    clients that retry by themselves, as push-back."""
    full = isinstance(error, Unavailable)
    code = grpc.StatusCode.UNAVAILABLE if full else grpc.StatusCode.RESOURCE_EXHAUSTED
    info = AnyMessage(type_url=RETRY_INFO, value=_field(1, Duration(seconds=error.retry_after).SerializeToString()))
    # google.rpc.Status: code, message, details. Its Python package is not worth a dependency.
    status = bytes([1 << 3, code.value[0]]) + _field(2, str(error).encode()) + _field(3, info.SerializeToString())
    trailers = (
        ("retry-after", str(error.retry_after)),
        ("grpc-retry-pushback-ms", str(1000 * error.retry_after)),
        ("grpc-status-details-bin", status),
    )
    return End(code, str(error), trailers)


def _field(number: int, content: bytes) -> bytes:
    """A field of protobuf that holds bytes."""
    size, length = len(content), bytearray()
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([number << 3 | 2, *length, size]) + content
