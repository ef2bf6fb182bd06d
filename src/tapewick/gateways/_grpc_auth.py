"""The check of tokens on the gRPC port: metadata ``authorization: Bearer TOKEN``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import grpc
from grpc_health.v1 import health

from tapewick.errors import Forbidden, Unauthorized
from tapewick.gateways._auth import Guard, carried

__all__ = ["GuardInterceptor", "token_in"]

Handler = Any  # a method of any shape, or None


class GuardInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Ends calls of clients that ``guard`` does not admit with UNAUTHENTICATED, of keys that may not read with
    PERMISSION_DENIED; asking for health is free."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]], details: grpc.HandlerCallDetails
    ) -> Handler:
        handler = await continuation(details)
        if handler is None or details.method.startswith(f"/{health.SERVICE_NAME}/"):
            return handler
        try:
            self._guard.check(token_in(details.invocation_metadata))
        except Unauthorized as error:
            return _refusing(handler, grpc.StatusCode.UNAUTHENTICATED, str(error))
        except Forbidden as error:
            return _refusing(handler, grpc.StatusCode.PERMISSION_DENIED, str(error))
        return handler


def token_in(metadata: Iterable[tuple[str, str | bytes]]) -> str | None:
    """The token that a call's metadata carry; None without one."""
    told = {name.lower(): value for name, value in metadata if isinstance(value, str)}
    return carried(lambda name: told.get(name.lower()))


def _refusing(
    handler: grpc.RpcMethodHandler[Any, Any], code: grpc.StatusCode, why: str
) -> grpc.RpcMethodHandler[Any, Any]:
    """A method of the same shape that only refuses: of another shape it would wait for what never comes."""

    async def one(request: object, context: Any) -> None:
        await context.abort(code, why)

    async def many(request: object, context: Any) -> AsyncIterator[bytes]:
        await context.abort(code, why)
        yield b""

    shapes: dict[tuple[bool, bool], Any] = {
        (False, False): (grpc.unary_unary_rpc_method_handler, one),
        (False, True): (grpc.unary_stream_rpc_method_handler, many),
        (True, False): (grpc.stream_unary_rpc_method_handler, one),
        (True, True): (grpc.stream_stream_rpc_method_handler, many),
    }
    make, behaviour = shapes[handler.request_streaming, handler.response_streaming]
    made: grpc.RpcMethodHandler[Any, Any] = make(behaviour)
    return made
