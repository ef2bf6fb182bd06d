"""SC17: as a client of real servers: a good certificate works; a wrong authority, an expired one and TLS 1.1 do not."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tapewick.buses._broker import Tls
from tapewick.errors import BusError, StoreError
from tapewick.stores.postgres import PostgresStore
from tests.buses.rig import BusRig, got, head
from tests.conformance.tls import Certificate
from tests.parts.child import Child, free_ports
from tests.parts.kafka import KafkaServer
from tests.parts.nats import NatsServer
from tests.parts.postgres import PostgresServer
from tests.parts.redis import RedisServer
from tests.security.certificates import Authorities, client, eleven, eleven_server, spoken

ELEVEN = "ALL:@SECLEVEL=0"


@contextmanager
def started(server: Child) -> Iterator[None]:
    running = server.running()
    next(running)
    try:
        yield
    finally:
        running.close()  # type: ignore[attr-defined]


async def passes(kind: str, url: str, authority: Path, **options: Any) -> None:
    """A message goes round."""
    async with BusRig(kind).open(url=url, tls=Tls(str(authority)), **options) as bus:
        reader = bus.subscribe(["head"])
        await bus.publish("head", head(1))
        assert (await got(reader, 1))[0].message == head(1)


async def refused(kind: str, url: str, authority: Path, match: str = ".", **options: Any) -> None:
    with pytest.raises(BusError, match=match):
        async with BusRig(kind).open(url=url, tls=Tls(str(authority)), **options):
            pass


# -- Redis ---------------------------------------------------------------------------------------


def redis(port: int, own: Certificate, *more: str) -> RedisServer:
    files = ("--tls-cert-file", str(own.cert), "--tls-key-file", str(own.key), "--tls-ca-cert-file", str(own.authority))
    return RedisServer(options=("--tls-port", str(port), *files, "--tls-auth-clients", "no", *more))


async def test_sc17_redis(certified: Authorities) -> None:
    good, expired, foreign = certified
    for own, more, works in ((good, (), True), (expired, (), False)):
        [port] = free_ports(1)
        url = f"rediss://127.0.0.1:{port}/0"
        with started(redis(port, own, *more)):
            if works:
                await passes("redis", url, good.authority)
                await refused("redis", url, foreign.authority, "certificate")
            else:
                await refused("redis", url, good.authority, "certificate")
    [port] = free_ports(1)
    with started(redis(port, good, "--tls-protocols", "TLSv1.1", "--tls-ciphers", ELEVEN)):
        assert await spoken(port, eleven(client(good.authority))) == "TLSv1.1", "it does speak it"
        await refused("redis", f"rediss://127.0.0.1:{port}/0", good.authority)


# -- NATS ----------------------------------------------------------------------------------------


async def test_sc17_nats(certified: Authorities) -> None:
    good, expired, foreign = certified
    for own, works in ((good, True), (expired, False)):
        server = NatsServer(options=("-js", "--tls", "--tlscert", str(own.cert), "--tlskey", str(own.key)))
        with started(server):
            url = server.url.replace("nats://", "tls://")
            if works:
                await passes("nats", url, good.authority)
                await refused("nats", url, foreign.authority, "certificate")
            else:
                await refused("nats", url, good.authority, "certificate")


async def test_sc17_nats_that_speaks_tls_1_1_only(certified: Authorities) -> None:
    """The real server cannot be kept from newer versions: one that greets like it stands in."""
    info = {"server_id": "X", "version": "2.9.10", "proto": 1, "max_payload": 1 << 20, "tls_required": True}
    greeting = b"INFO " + json.dumps(info).encode() + b"\r\n"
    async with eleven_server(certified.good, greeting) as port:
        await refused("nats", f"tls://127.0.0.1:{port}", certified.good.authority)


# -- Kafka ---------------------------------------------------------------------------------------


async def test_sc17_kafka(certified: Authorities, tmp_path: Path) -> None:
    """One broker with a listener for each certificate."""
    good, expired, _ = certified  # the wrong authority: tests/buses/test_refusals.py
    names = {"GOOD": good, "OLD": expired}
    ports = dict(zip(names, free_ports(2), strict=True))
    options = ["ssl.keystore.type=PEM"]
    for name, own in names.items():
        both = tmp_path / f"{name}.pem"
        both.write_text(own.key.read_text() + own.cert.read_text())
        options += [
            f"listener.name.{name.lower()}.ssl.keystore.type=PEM",
            f"listener.name.{name.lower()}.ssl.keystore.location={both}",
        ]
    server = Broker(ports, options)
    with started(server):
        await passes("kafka", f"127.0.0.1:{ports['GOOD']}", good.authority, encrypt=True)
        await refused("kafka", f"127.0.0.1:{ports['OLD']}", good.authority, encrypt=True)
    async with eleven_server(good) as port:
        assert await spoken(port, eleven(client(good.authority))) == "TLSv1.1"
        await refused("kafka", f"127.0.0.1:{port}", good.authority, encrypt=True)


class Broker(KafkaServer):
    """With listeners that speak TLS only."""

    def __init__(self, ports: dict[str, int], options: list[str]) -> None:
        super().__init__()
        self._named, self._files = ports, options

    def _configure(self) -> None:
        if not self.port:
            self.port, self._controller = free_ports(2)
        more = "".join(f",{name}://127.0.0.1:{port}" for name, port in self._named.items())
        kinds = "".join(f",{name}:SSL" for name in self._named)
        plain, control = f"PLAINTEXT://127.0.0.1:{self.port}", f"CONTROLLER://127.0.0.1:{self._controller}"
        self._options = [
            *self._files,
            f"listeners={plain},{control}{more}",
            f"advertised.listeners={plain}{more}",
            f"listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT{kinds}",
        ]
        super()._configure()


# -- PostgreSQL ----------------------------------------------------------------------------------


async def opened(dsn: str) -> None:
    async with PostgresStore(dsn) as store:
        await store.instruments()


async def until(dsn: str, *, opens: bool) -> str:
    """Wait until a server that reads its files anew opens, or refuses; what it said last."""
    said = ""
    async with asyncio.timeout(60):
        while True:
            try:
                await opened(dsn)
            except StoreError as error:
                said = str(error)
                if not opens:
                    return said
            else:
                if opens:
                    return said
            await asyncio.sleep(0.05)


def certify(server: PostgresServer, own: Certificate, **settings: str) -> None:
    """Have the server show this certificate from now on."""
    home = Path(server.data)
    for source, name in ((own.cert, "server.crt"), (own.key, "server.key")):
        (home / name).write_bytes(source.read_bytes())
        (home / name).chmod(0o600)
        if os.geteuid() == 0:
            shutil.chown(home / name, "postgres", "postgres")
    for name, value in {"ssl": "on", **settings}.items():
        server.sql(f"ALTER SYSTEM SET {name} = '{value}'")
    server.sql("SELECT pg_reload_conf()")


async def upgraded(port: int, context: ssl.SSLContext) -> str:
    """The TLS version PostgreSQL agrees on."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(bytes.fromhex("0000000804d2162f"))
    assert await reader.readexactly(1) == b"S"
    await writer.start_tls(context, server_hostname="127.0.0.1")
    version = str(writer.get_extra_info("ssl_object").version())
    writer.transport.abort()
    return version


async def test_sc17_postgresql(certified: Authorities, durable_postgres: PostgresServer) -> None:
    server, (good, expired, foreign) = durable_postgres, certified
    dsn = server.database()
    ours, theirs = (f"{dsn}&sslmode=verify-full&sslrootcert={one.authority}" for one in (good, foreign))
    certify(server, good)
    await until(ours, opens=True)
    assert "does not prove who it is" in await until(theirs, opens=False)
    certify(server, expired)
    assert "does not prove who it is" in await until(ours, opens=False)
    certify(server, good)
    await until(ours, opens=True)
    old = "TLSv1.1"
    certify(server, good, ssl_ciphers=ELEVEN, ssl_min_protocol_version=old, ssl_max_protocol_version=old)
    await until(ours, opens=False)
    assert await upgraded(server.port, eleven(client(good.authority))) == old, "it does speak it"
