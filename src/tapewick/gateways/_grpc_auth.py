"""The check of tokens on the gRPC port: metadata ``authorization: Bearer TOKEN``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from grpc_health.v1 import health

from tapewick.errors import Forbidden, Unauthorized
from tapewick.gateways._auth import Guard, carried

__all__ = ["GuardInterceptor"]

Handler = Any  # a method of any shape, or None


class GuardInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Ends calls of clients that ``guard`` does not admit with UNAUTHENTICATED; asking for health is free."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]], details: grpc.HandlerCallDetails
    ) -> Handler:
        handler = await continuation(details)
        if handler is None or details.method.startswith(f"/{health.SERVICE_NAME}/"):
            return handler
        told = {name.lower(): value for name, value in details.invocation_metadata if isinstance(value, str)}
        try:
            self._guard.check(carried(lambda name: told.get(name.lower())))
        except (Unauthorized, Forbidden) as error:
            return _refusing(handler, str(error))
        return handler


def _refusing(handler: grpc.RpcMethodHandler[Any, Any], why: str) -> grpc.RpcMethodHandler[Any, Any]:
    """A method of the same shape that only refuses: of another shape it would wait for what never comes."""

    async def one(request: object, context: Any) -> None:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, why)

    async def many(request: object, context: Any) -> AsyncIterator[bytes]:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, why)
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
