"""Who may administer without a key: nobody by default; where it is allowed, nobody behind a proxy that says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tapewick import registry
from tapewick.gateways._auth import FORWARDING
from tapewick.keys import KeyFile
from tapewick.settings import Data, Server, Settings
from tests.gateways.rig import BTC, Rig, running

BODY = b'{"instrument":"sim:SOLUSDT"}'
JSON = b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(BODY)
ACTS = (
    b"POST /v1/watch HTTP/1.1\r\n" + JSON,
    b"DELETE /v1/watch/sim:SOLUSDT HTTP/1.1\r\n",
    b"POST /v1/repair/%b HTTP/1.1\r\nContent-Length: 0\r\n" % BTC.encode(),
)


def opened(folder: Path, **server: Any) -> Any:
    """A gateway with what the settings say."""
    settings = Settings(data=Data(str(folder)), server=Server(**server))
    proxies = settings.server.trusted_proxies
    return running(folder / "data", guard=registry.guard(settings), trusted_proxies=proxies)


@asynccontextmanager
async def forwarded(rig: Rig) -> AsyncIterator[int]:
    """The port of a proxy that knows nothing of HTTP: it passes bytes on, and its connections come from here."""
    host, port = rig.gateway.url.rpartition("/")[2].split(":")

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
        writer.close()

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(host, int(port))
        await asyncio.gather(copy(reader, back), copy(there, writer))

    server = await asyncio.start_server(accepted, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def answer(port: int, act: bytes, more: bytes = b"", host: bytes = b"localhost") -> tuple[int, bytes]:
    """Status and bytes of what an act is answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    rest = BODY if b"watch HTTP" in act and act.startswith(b"POST") else b""
    writer.write(act + b"Host: " + host + b"\r\nConnection: close\r\n" + more + b"\r\n" + rest)
    async with asyncio.timeout(60):
        told = await reader.read()
    writer.close()
    return int(told.split()[1]), told


def port_of(rig: Rig) -> int:
    return int(rig.gateway.url.rpartition(":")[2])


async def test_by_default_nobody_administers_without_a_key(tmp_path: Path) -> None:
    async with opened(tmp_path) as rig, forwarded(rig) as proxy:
        for port in (port_of(rig), proxy):
            for act in ACTS:
                for more in (b"", b"X-Forwarded-For: 127.0.0.1\r\n", b"X-Real-IP: 127.0.0.1\r\n"):
                    status, told = await answer(port, act, more)
                    assert status == 401, told
                    assert b"tapewick keys create --scope admin" in told
        assert (await rig.get("/v1/watch"))["watched"] == []
        key = KeyFile(tmp_path).create(["admin"])[1]
        shown = f"Authorization: Bearer {key}\r\n".encode()
        assert (await answer(proxy, ACTS[0], shown))[0] == 202, "who shows a key is welcome from anywhere"


async def test_where_it_is_allowed_this_machine_may_and_who_comes_through_a_proxy_may_not(tmp_path: Path) -> None:
    async with opened(tmp_path, local_admin=True) as rig:
        port = port_of(rig)
        for name in FORWARDING:
            for value in ("127.0.0.1", "localhost", "for=127.0.0.1", ""):
                assert (await answer(port, ACTS[0], f"{name}: {value}\r\n".encode()))[0] == 401, name
        for host in (b"rebound.example", b"localhost.example", b"127.0.0.1.example", b"", b"[::1].example"):
            assert (await answer(port, ACTS[0], host=host))[0] in (400, 401), host
        assert (await rig.get("/v1/watch"))["watched"] == []
        for host in (b"localhost", b"127.0.0.1:%d" % port, b"[::1]:1"):
            assert (await answer(port, ACTS[0], host=host))[0] == 202
        assert [(await answer(port, act))[0] for act in ACTS[1:]] == [204, 202]


@pytest.mark.parametrize("proxies", [("127.0.0.1",), ("127.0.0.0/8", "::1")])
async def test_an_address_that_a_trusted_proxy_tells_does_not_make_anybody_local(
    tmp_path: Path, proxies: tuple[str, ...]
) -> None:
    async with opened(tmp_path, local_admin=True, trusted_proxies=proxies) as rig:
        for told in (b"127.0.0.1", b"203.0.113.9, 127.0.0.1", b"::1"):
            assert (await answer(port_of(rig), ACTS[0], b"X-Forwarded-For: " + told + b"\r\n"))[0] == 401
