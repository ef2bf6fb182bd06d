"""A small JSON GET client: time-outs, a size cap, and every failure mapped to one error tree."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Self, TypeVar

import httpx2
import msgspec

from tapewick.errors import BadPayload, Disconnected, VenueRefused
from tapewick.net.address import proxy_for, shown

__all__ = ["JsonClient", "waiting_time"]

T = TypeVar("T")


class JsonClient:
    """GET requests to one base address, answered as typed values.

    Redirects are not followed: the base address is the operator's, and only that. ``headers`` go with each request.
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeout: float = 10.0,
        max_bytes: int = 32 << 20,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._host = shown(base_url)
        self._max_bytes = max_bytes
        self._client = httpx2.AsyncClient(
            base_url=base_url,
            timeout=timeout,
            verify=ssl.create_default_context() if base_url.startswith("https") else False,
            proxy=proxy_for(base_url),
            trust_env=False,
            headers={"User-Agent": "tapewick", "Accept": "application/json", **headers},
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def get(
        self,
        path: str,
        type: type[T],
        params: Mapping[str, str | int] | None = None,
        *,
        on_answer: Callable[[int, Mapping[str, str]], None] | None = None,
    ) -> T:
        """The answer to ``GET path?params`` decoded as ``type``.

        ``on_answer`` is given status and headers (names in any case) of every answer, also of a refusal.
        Raises ``Disconnected`` when there is no answer, ``VenueRefused`` for an error status (and,
        as 502, for a body that is cut off, too large or no JSON), ``BadPayload`` for JSON of another shape.
        """
        try:
            async with self._client.stream("GET", path, params=params) as answer:
                if on_answer is not None:
                    on_answer(answer.status_code, answer.headers)
                body = await self._read(answer)
        except httpx2.DecodingError as error:
            raise self._unreadable(path, f"a damaged body ({error})") from error
        except httpx2.RemoteProtocolError as error:
            raise self._unreadable(path, f"a broken answer ({error})") from error
        except httpx2.TransportError as error:
            cause = str(error) or error.__class__.__name__
            raise Disconnected(f"{self._host} cannot be reached: {cause}") from error
        if answer.status_code != 200:
            raise self._refusal(path, answer, body)
        try:
            return msgspec.json.decode(body, type=type)
        except msgspec.ValidationError as error:
            raise BadPayload(f"{self._host}{path} answered in an unknown shape: {error}") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._unreadable(path, "something that is no JSON") from error

    async def _read(self, answer: httpx2.Response) -> bytes:
        body = bytearray()
        async for chunk in answer.aiter_bytes():
            body += chunk
            if len(body) > self._max_bytes:
                raise self._unreadable(str(answer.url.path), f"more than {self._max_bytes} bytes")
        return bytes(body)

    def _unreadable(self, path: str, what: str) -> VenueRefused:
        return VenueRefused(f"{self._host}{path} answered with {what}", status=502)

    def _refusal(self, path: str, answer: httpx2.Response, body: bytes) -> VenueRefused:
        status = answer.status_code
        kind = answer.headers.get("content-type", "")
        # ascii() keeps line breaks and control characters of a hostile body out of logs.
        said = "" if "html" in kind else _said(body) if "problem+json" in kind else ascii(_text(body[:160]))
        return VenueRefused(
            f"{self._host}{path} answered HTTP {status} {said}".rstrip(),
            status=status,
            retry_after=waiting_time(status, answer.headers.get("retry-after")),
        )


def _text(body: bytes) -> str:
    return body.decode("utf-8", "replace")


def _said(body: bytes) -> str:
    """What a problem document tells people."""
    try:
        problem = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        problem = None
    detail = problem.get("detail") if isinstance(problem, dict) else None
    if not isinstance(detail, str):
        return ascii(_text(body[:160]))
    return "".join(char for char in detail[:500] if char.isprintable())


def waiting_time(status: int, retry_after: str | None) -> float | None:
    """Seconds a refused client has to wait, at most a week; None where nothing is prescribed.

    A ban (418) lasts at least two minutes, also when its end is not given; dates are not read.
    """
    if retry_after and retry_after.isascii() and retry_after.isdigit():
        return min(float(retry_after), 604800.0)
    return 120.0 if status == 418 else None
