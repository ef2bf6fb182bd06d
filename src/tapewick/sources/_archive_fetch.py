"""Archive files onto this disk, each held to the checksum published beside it before anybody reads it."""

from __future__ import annotations

import asyncio
import hashlib
import re
import ssl
from pathlib import Path
from typing import NamedTuple, Self

import httpx2

from tapewick.clock import Clock, RealClock
from tapewick.errors import BadPayload, Disconnected, VenueRefused
from tapewick.net.address import proxy_for, shown
from tapewick.net.backoff import Backoff
from tapewick.net.http import waiting_time
from tapewick.sources._archive_names import Archive
from tapewick.sources._archive_zip import check_zip

__all__ = ["BASE_URL", "Fetcher", "Verified"]

BASE_URL = "https://data.binance.vision"
LARGEST = 16 << 30  # stored bytes of one archive
_CHECKSUM_BYTES = 4096
_ATTEMPTS = 4
_PATIENCE = 120.0  # seconds a server may ask to wait
_LINE = re.compile(r"([0-9a-fA-F]{64})[ \t]+\*?(\S.*)")


class Verified(NamedTuple):
    """An archive on disk whose content is as published; ``temporary``: to be removed after use."""

    archive: Archive
    path: Path
    sha256: str
    temporary: bool


class Fetcher:
    """Gets archives below ``base_url`` into ``folder``; those with an ``origin`` from there."""

    def __init__(self, folder: Path, *, base_url: str = "", clock: Clock | None = None, timeout: float = 30.0) -> None:
        self._folder = folder
        self._base = (base_url or BASE_URL).rstrip("/")
        self._clock = clock or RealClock()
        self._timeout = timeout
        self._clients: dict[str, httpx2.AsyncClient] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        for client in self._clients.values():
            await client.aclose()

    async def published(self, archive: Archive) -> str | None:
        """The SHA-256 published for ``archive``, None where the venue has no such file.

        For a local file: that of the ``.CHECKSUM`` beside it, or its own where there is none.
        Raises ``SourceError`` when it cannot be had, ``BadPayload`` when it is no checksum of this file.
        """
        if _is_local(archive):
            return await asyncio.to_thread(_beside, archive)
        target = self._folder / f"{archive.name}.CHECKSUM"
        url = f"{self._address(archive)}.CHECKSUM"
        try:
            await self._download(url, target, _CHECKSUM_BYTES)
        except VenueRefused as error:
            if error.status == 404:
                return None
            raise
        text = target.read_bytes()
        target.unlink()
        return _checksum(text, archive, url)

    async def get(self, archive: Archive, sha256: str) -> Verified:
        """``archive`` on this disk, its content held to ``sha256``. Raises ``BadPayload`` when it differs."""
        local = _is_local(archive)
        path = Path(archive.origin) if local else self._folder / archive.name
        try:
            if local:
                found = await asyncio.to_thread(_sha256, path)
            else:
                found = await self._download(self._address(archive), path, LARGEST)
            if found != sha256:
                raise BadPayload(
                    f"{archive.name} has SHA-256 {found}, but {sha256} was published for it: "
                    "nothing of it was imported, fetch it again"
                )
            await asyncio.to_thread(check_zip, path)
        except BaseException:
            if not local:
                path.unlink(missing_ok=True)
            raise
        return Verified(archive, path, sha256, not local)

    def _address(self, archive: Archive) -> str:
        return archive.origin or f"{self._base}/{archive.path}"

    async def _download(self, url: str, target: Path, largest: int) -> str:
        """Store what ``url`` answers; its SHA-256. Tries again a few times where that may help."""
        backoff = Backoff(cap=5.0)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return await self._stored(url, target, largest)
            except (Disconnected, VenueRefused) as error:
                status, asked = getattr(error, "status", 0), getattr(error, "retry_after", None)
                wait = backoff.delay(asked)
                lasting = status and status < 500 and status not in (408, 429)
                if attempt == _ATTEMPTS or lasting or wait > _PATIENCE:
                    raise
            await self._clock.sleep(wait)
        raise AssertionError("unreachable: the loop ends by returning or raising")

    async def _stored(self, url: str, target: Path, largest: int) -> str:
        digest, size = hashlib.sha256(), 0
        try:
            async with self._client(url).stream("GET", url) as answer:
                if answer.status_code != 200:
                    raise VenueRefused(
                        f"{shown(url)} answered HTTP {answer.status_code} for {url.rpartition('/')[2]}",
                        status=answer.status_code,
                        retry_after=waiting_time(answer.status_code, answer.headers.get("retry-after")),
                    )
                with target.open("wb") as file:
                    async for chunk in answer.aiter_raw(1 << 20):
                        size += len(chunk)
                        if size > largest:
                            raise BadPayload(f"{url.rpartition('/')[2]} is larger than {largest:,} bytes: not fetched")
                        digest.update(chunk)
                        await asyncio.to_thread(file.write, chunk)
        except httpx2.TransportError as error:
            cause = str(error) or type(error).__name__
            raise Disconnected(f"{shown(url)} broke off or cannot be reached: {cause}") from error
        return digest.hexdigest()

    def _client(self, url: str) -> httpx2.AsyncClient:
        host = shown(url)
        if host not in self._clients:
            self._clients[host] = httpx2.AsyncClient(
                timeout=self._timeout,
                verify=ssl.create_default_context() if url.startswith("https") else False,
                proxy=proxy_for(url),
                trust_env=False,
                headers={"User-Agent": "tapewick", "Accept-Encoding": "identity"},
            )
        return self._clients[host]


def _is_local(archive: Archive) -> bool:
    return bool(archive.origin) and "://" not in archive.origin


def _beside(archive: Archive) -> str:
    """The checksum in the file beside a local one; without such a file its own."""
    beside = Path(f"{archive.origin}.CHECKSUM")
    if not beside.is_file():
        return _sha256(Path(archive.origin))
    return _checksum(beside.read_bytes()[:_CHECKSUM_BYTES], archive, str(beside))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checksum(text: bytes, archive: Archive, where: str) -> str:
    """The digest a ``sha256sum`` line gives for ``archive``. Raises ``BadPayload``."""
    for line in text.decode("utf-8", "replace").splitlines():
        matched = _LINE.fullmatch(line.strip())
        if matched is not None and matched[2].rpartition("/")[2] == archive.name:
            return matched[1].lower()
    raise BadPayload(f"{where} holds no SHA-256 of {archive.name}: nothing of it was imported")
