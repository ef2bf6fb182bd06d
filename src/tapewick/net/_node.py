"""One chain node over HTTP: a JSON-RPC call, its answer bounded in time and size, and what its errors mean."""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from collections.abc import Sequence
from typing import Any, TypeVar

import httpx2
import msgspec

from tapewick.errors import BadPayload, Disconnected, NodeRefused, SourceError, TooWide, VenueRefused
from tapewick.net.address import proxy_for
from tapewick.net.http import waiting_time
from tapewick.secrecy import masked, plain

__all__ = ["Node"]

# It logs a line for each request, with the address, which holds a key.
logging.getLogger("httpx2").setLevel(logging.WARNING)

T = TypeVar("T")
FINAL = frozenset({-32602, 3})
"""Codes that say the same however often one asks: bad parameters, reverted. That it takes our requests for none, or
lacks a method, is a node's own fault: another one is asked."""
_halted = re.compile(
    r"revert|out of ?gas|gas uint64 overflow|gas required exceeds|opcode \S+ not defined|"
    r"\b(invalid|bad|undefined|unknown) ?(opcode|instruction|jump)|stack ?(underflow|overflow|limit)|call depth|"
    r"return data out of bounds|write protection|evm ?error|vm (execution error|exception)",
    re.IGNORECASE,
)
_wide = re.compile(
    r"\branges?\b|too many (results|logs|blocks)|returned more than|response (is )?too (large|big)|response size|"
    r"size exceeded|limited to [\d,]+k? block",
    re.IGNORECASE,
)
_rate = re.compile(r"\brate\b|per second|compute units|too many requests", re.IGNORECASE)
_often = re.compile(r"request limit|request count|quota|throttl|capacity", re.IGNORECASE)
_between = re.compile(r"\[\s*(0x[0-9a-f]+|\d+)\s*[,-]\s*(0x[0-9a-f]+|\d+)\s*\]", re.IGNORECASE)
_blocks = re.compile(r"([\d,]+)(k?)[\s-]*(?:blocks?|range)\b|range\D{0,24}?([\d,]+)(k?)", re.IGNORECASE)


class _Error(msgspec.Struct):
    code: int
    message: str = ""


class _Answer(msgspec.Struct):
    id: Any = None
    result: msgspec.Raw = msgspec.Raw()
    error: _Error | None = None


class Node:
    """``name`` is what may be shown of ``url``."""

    def __init__(self, url: str, name: str, *, timeout: float, max_bytes: int) -> None:
        self.name = name
        self._url = url
        self._timeout = timeout
        self._max_bytes = max_bytes
        self._client = httpx2.AsyncClient(
            timeout=timeout,
            verify=ssl.create_default_context() if url.startswith("https") else False,
            proxy=proxy_for(url),
            trust_env=False,
            headers={"User-Agent": "tapewick", "Accept": "application/json", "Content-Type": "application/json"},
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def ask(self, method: str, params: Sequence[Any], type: type[T], number: int) -> T:
        """The result of one call; the whole of it may take the time-out once.

        Raises ``Disconnected`` without an answer, ``VenueRefused`` for an HTTP error, ``NodeRefused`` and
        ``TooWide`` for an error of JSON-RPC, ``BadPayload`` for an answer of another shape.
        """
        asked = msgspec.json.encode({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        try:
            async with asyncio.timeout(self._timeout):
                status, headers, body = await self._exchange(asked)
        except TimeoutError as error:
            raise Disconnected(f"{self.name} did not answer {method} within {self._timeout:g} s") from error
        except (httpx2.TransportError, httpx2.DecodingError, httpx2.InvalidURL) as error:
            cause = _clean(str(error)) or error.__class__.__name__
            raise Disconnected(f"{self.name} cannot be reached: {cause}") from error
        try:
            answer = msgspec.json.decode(body, type=_Answer)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._unreadable(status, headers, body) from error
        if answer.error is not None:
            raise self._refusal(method, answer.error)
        if status != 200 or not bytes(answer.result) or answer.id != number:
            raise self._unreadable(status, headers, body)
        try:
            return msgspec.json.decode(answer.result, type=type)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadPayload(f"{self.name} answered {method} in an unknown shape: {error}") from error

    async def _exchange(self, asked: bytes) -> tuple[int, httpx2.Headers, bytes]:
        body = bytearray()
        async with self._client.stream("POST", self._url, content=asked) as answer:
            async for chunk in answer.aiter_bytes():
                body += chunk
                if len(body) > self._max_bytes:
                    raise TooWide(f"{self.name} answered with more than {self._max_bytes} bytes", code=0, span=None)
        return answer.status_code, answer.headers, bytes(body)

    def _unreadable(self, status: int, headers: httpx2.Headers, body: bytes) -> SourceError:
        said = _clean(body[:160].decode("utf-8", "replace"))
        if status == 200:
            return BadPayload(f"{self.name} answered with something that is no JSON-RPC: {said!a}")
        wait = waiting_time(status, headers.get("retry-after"))
        return VenueRefused(f"{self.name} answered HTTP {status} {said!a}", status=status, retry_after=wait)

    def _refusal(self, method: str, error: _Error) -> NodeRefused:
        said = _clean(error.message)
        text = f"{self.name} refused {method}: {said!a} ({error.code})"
        if method == "eth_getLogs" and _wide.search(said) and not _rate.search(said):
            return TooWide(text, code=error.code, span=_span(said))
        halted = method == "eth_call" and (error.code == 3 or _halted.search(said) is not None)
        rate = error.code in (429, -32005) or bool(_rate.search(said) or _often.search(said))
        return NodeRefused(text, code=error.code, final=error.code in FINAL or halted, halted=halted, rate=rate)


def _clean(text: str) -> str:
    """The beginning of what a server said, without secrets and as one line."""
    return masked(plain(text))[:300]


def _span(said: str) -> int | None:
    """How many blocks a refusal says it takes: ``[0x1, 0x64]``, ``Max range: 2000``, ``limited to 10k blocks``."""
    if found := _between.search(said):
        first, last = (int(text, 0) for text in found.groups())
        return max(last - first + 1, 1)
    numbers = []
    for match in _blocks.finditer(said):
        digits, thousands = match.group(1, 2) if match[1] else match.group(3, 4)
        if digits.strip(","):
            numbers.append(int(digits.replace(",", "")) * (1000 if thousands else 1))
    return min((number for number in numbers if 1 <= number <= 100_000), default=None)
