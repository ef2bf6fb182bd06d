"""Requests of a client to a server's REST surface: typed answers, streamed files, refusals as errors."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple, TypeVar

import httpx2
import msgspec

from tapewick._client_address import advice
from tapewick.errors import (
    ApiError,
    BadPayload,
    BadRequest,
    Disconnected,
    NotFound,
    SourceError,
    TooManyRequests,
    Unauthorized,
    VenueRefused,
)
from tapewick.net.address import proxy_for, shown
from tapewick.net.http import waiting_time

__all__ = ["File", "Params", "Rest", "refusal"]

T = TypeVar("T")
Params = Mapping[str, str | int | None]

MAX_BYTES = 64 << 20  # of an answer that is held whole


class File(NamedTuple):
    """An answer that is read as it comes, and the position it stands for."""

    position: str
    chunks: AsyncIterator[bytes]


class _Problem(msgspec.Struct):
    detail: str = ""
    field: str | None = None


class Rest:
    """Requests to the server at ``url``. Redirects are not followed: the address is the reader's, and only that.

    Raises ``Disconnected`` where there is no answer within ``timeout`` seconds of silence, else as ``refusal``.
    """

    def __init__(self, url: str, *, timeout: float, headers: Mapping[str, str], tls: ssl.SSLContext | None) -> None:
        self._shown = shown(url)
        self._http = httpx2.AsyncClient(
            base_url=url,
            timeout=timeout,
            verify=(tls or ssl.create_default_context()) if url.startswith("https") else False,
            proxy=proxy_for(url),
            trust_env=False,
            headers=dict(headers),
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def get(self, path: str, type: type[T], params: Params | None = None) -> T:
        """The JSON answer as ``type``; numbers may come as text. Raises ``BadPayload`` for another shape."""
        async with self._answer(path, params) as answer:
            body = bytearray()
            async for chunk in answer.aiter_bytes():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise BadPayload(f"{self._shown}{path} answered with over {MAX_BYTES} bytes; ask for fewer rows")
        try:
            return msgspec.json.decode(body, type=type, strict=False)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadPayload(f"{self._shown}{path} answered in an unknown shape: {error}") from error

    @asynccontextmanager
    async def file(self, path: str, params: Params | None = None) -> AsyncGenerator[File, None]:
        """The answer, however long, while the context is open."""
        async with self._answer(path, params) as answer:
            yield File(answer.headers.get("tapewick-position", ""), answer.aiter_bytes())

    async def post(self, path: str, params: Params | None = None) -> None:
        """Have the server do something; it has been taken when this returns."""
        async with self._answer(path, params, method="POST", wanted=202):
            pass

    @asynccontextmanager
    async def _answer(
        self, path: str, params: Params | None, *, method: str = "GET", wanted: int = 200
    ) -> AsyncGenerator[httpx2.Response, None]:
        asked = {name: str(value) for name, value in (params or {}).items() if value is not None}
        try:
            async with self._http.stream(method, path, params=asked or None) as answer:
                if answer.status_code != wanted:
                    wait = answer.headers.get("retry-after")
                    raise refusal(self._shown + path, answer.status_code, await answer.aread(), wait)
                yield answer
        except httpx2.TransportError as error:
            cause = str(error) or error.__class__.__name__
            # Who wants a certificate and gets none may end the connection after the handshake, in either way.
            ended = httpx2.RemoteProtocolError, httpx2.ReadError
            answered = isinstance(error, ended if self._shown.startswith("https:") else httpx2.RemoteProtocolError)
            next_step = advice(self._shown, cause, answered=answered)
            raise Disconnected(f"{self._shown} cannot be reached: {cause.rstrip('.')}; {next_step}") from error
        except httpx2.HTTPError as error:
            raise BadPayload(f"{self._shown}{path} answered with a damaged body: {error}") from error


def refusal(where: str, status: int, body: bytes, retry_after: str | None = None) -> ApiError | SourceError:
    """What a server said with an error status: ``Unauthorized`` (401, 403), ``NotFound`` (404), ``TooManyRequests``
    (429), ``BadRequest`` (other 4xx), ``VenueRefused`` (all else)."""
    try:
        problem = msgspec.json.decode(body, type=_Problem)
    except (msgspec.DecodeError, UnicodeDecodeError):
        problem = _Problem()
    # What is printable only: a hostile answer must not reach a terminal with control characters.
    said = "".join(char for char in problem.detail[:500] if char.isprintable())
    text, wait = said or f"{where} answered HTTP {status}", waiting_time(status, retry_after)
    if status in (401, 403):
        return Unauthorized(f"{text}; pass the right token")
    if status == 404:
        return NotFound(text, field=problem.field)
    if status == 429:
        return TooManyRequests(text, retry_after=int(wait or 1))
    if 400 <= status < 500:
        return BadRequest(text, field=problem.field)
    return VenueRefused(text, status=status, retry_after=wait)
