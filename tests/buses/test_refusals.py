"""Servers that are not there, do not let us in, or are not who they should be: what the user is told."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from tapewick import registry
from tapewick.buses._broker import Tls
from tapewick.config import SETTINGS, load, shown
from tapewick.errors import BusError, BusRefused, ConfigError, MissingExtra
from tests.buses.rig import NETWORK, BusRig, got, head
from tests.conformance.tls import Certificate, certificate
from tests.parts.child import free_ports
from tests.parts.kafka import KafkaServer, kafka_server  # noqa: F401
from tests.parts.nats import NatsServer
from tests.parts.redis import RedisServer


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certificate(tmp_path_factory.mktemp("own"))


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certificate(tmp_path_factory.mktemp("foreign"))


async def passes(kind: str, server: Any, **options: Any) -> None:
    """A message goes round."""
    async with BusRig(kind, server).open(**options) as bus:
        reader = bus.subscribe(["head"])
        await bus.publish("head", head(1))
        assert (await got(reader, 1))[0].message == head(1)


async def refused(kind: str, match: str, error: type[BusError] = BusError, **options: Any) -> None:
    with pytest.raises(error, match=match):
        async with BusRig(kind).open(**options):
            pass


@pytest.mark.parametrize("kind", NETWORK)
async def test_nobody_listens(kind: str) -> None:
    scheme = {"redis": "redis://", "nats": "nats://", "kafka": ""}[kind]
    await refused(kind, rf"is it running at {kind}\.", url=f"{scheme}127.0.0.1:{free_ports(1)[0]}")


async def test_redis_lets_nobody_in_without_the_password() -> None:
    running = RedisServer(password="hush").running()
    server = next(running)
    assert isinstance(server, RedisServer)
    try:
        await refused("redis", r"redis\.url", url=server.url)
        await refused("redis", r"redis\.url", BusRefused, url=server.url.replace("//", "//:wrong@"))
        await passes("redis", server, url=server.url.replace("//", "//:hush@"))
    finally:
        running.close()  # type: ignore[attr-defined]


async def test_nats_lets_nobody_in_without_the_password() -> None:
    running = NatsServer(options=("-js", "--user", "me", "--pass", "hush")).running()
    server = next(running)
    assert isinstance(server, NatsServer)
    try:
        await refused("nats", r"nats\.url", BusRefused, url=server.url)
        await refused("nats", r"nats\.url", BusRefused, url=server.url.replace("//", "//me:wrong@"))
        await passes("nats", server, url=server.url.replace("//", "//me:hush@"))
    finally:
        running.close()  # type: ignore[attr-defined]


async def test_nats_without_jetstream_is_named() -> None:
    running = NatsServer(options=()).running()
    server = next(running)
    assert isinstance(server, NatsServer)
    try:
        await refused("nats", "-js", BusRefused, url=server.url)
    finally:
        running.close()  # type: ignore[attr-defined]


async def test_a_changed_number_of_partitions_is_refused_by_kafka(kafka_server: KafkaServer) -> None:  # noqa: F811
    rig = BusRig("kafka", kafka_server)
    async with rig.open() as bus:
        await bus.publish("trades", head(1))
    async with rig.open(partitions=8) as bus:
        with pytest.raises(BusRefused, match=r"engine\.partitions"):
            await bus.publish("trades", head(1))
        reader = bus.subscribe(["trades"], group="engine")
        with pytest.raises(BusRefused, match=r"engine\.partitions"):
            await got(reader, 1)
        await bus.publish("head", head(1))


async def test_redis_over_tls(own: Certificate, foreign: Certificate) -> None:
    [port] = free_ports(1)
    files = ("--tls-cert-file", str(own.cert), "--tls-key-file", str(own.key), "--tls-ca-cert-file", str(own.authority))
    running = RedisServer(options=("--tls-port", str(port), *files, "--tls-auth-clients", "yes")).running()
    server = next(running)
    url = f"rediss://127.0.0.1:{port}/0"
    try:
        await passes("redis", server, url=url, tls=Tls(str(own.authority), str(own.cert), str(own.key)))
        await refused("redis", "certificate", url=url, tls=Tls(str(foreign.authority), str(own.cert), str(own.key)))
        await refused("redis", r"redis\.url", url=url, tls=Tls(str(own.authority)))
    finally:
        running.close()  # type: ignore[attr-defined]


async def test_nats_over_tls(own: Certificate, foreign: Certificate) -> None:
    files = ("--tlscert", str(own.cert), "--tlskey", str(own.key), "--tlscacert", str(own.authority))
    running = NatsServer(options=("-js", "--tlsverify", *files)).running()
    server = next(running)
    assert isinstance(server, NatsServer)
    url = server.url.replace("nats://", "tls://")
    try:
        await passes("nats", server, url=url, tls=Tls(str(own.authority), str(own.cert), str(own.key)))
        await refused("nats", "certificate", url=url, tls=Tls(str(foreign.authority), str(own.cert), str(own.key)))
        await refused("nats", r"nats\.url", url=url, tls=Tls(str(own.authority)))
    finally:
        running.close()  # type: ignore[attr-defined]


async def test_kafka_over_tls_with_a_password(own: Certificate, foreign: Certificate, tmp_path: Path) -> None:
    both = tmp_path / "server.pem"
    both.write_text(own.key.read_text() + own.cert.read_text())
    [port] = free_ports(1)
    login = "org.apache.kafka.common.security.plain.PlainLoginModule required user_me=hush;"
    running = KafkaServer(
        secure=port,
        options=(
            "sasl.enabled.mechanisms=PLAIN",
            f"listener.name.secure.plain.sasl.jaas.config={login}",
            "ssl.keystore.type=PEM",
            f"ssl.keystore.location={both}",
        ),
    ).running()
    server = next(running)
    url, trust = f"127.0.0.1:{port}", Tls(str(own.authority))
    good: dict[str, Any] = {
        "url": url,
        "encrypt": True,
        "tls": trust,
        "username": "me",
        "password": "hush",
        "mechanism": "PLAIN",
    }
    try:
        await passes("kafka", server, **good)
        await refused("kafka", r"kafka\.username", BusRefused, **{**good, "password": "wrong"})
        await refused("kafka", r"kafka\.", **{**good, "tls": Tls(str(foreign.authority))})
    finally:
        running.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("kind", "driver"), [("redis", "redis.asyncio"), ("nats", "nats.aio.client"), ("kafka", "confluent_kafka")]
)
def test_a_missing_driver_names_what_to_install(kind: str, driver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, driver, None)
    for module in (kind, f"_{kind}_broker", f"_{kind}_reader", f"_{kind}_driver"):
        monkeypatch.delitem(sys.modules, f"tapewick.buses.{module}", raising=False)
    with pytest.raises(MissingExtra, match=rf"pip install 'tapewick\[{kind}\]'"):
        importlib.import_module(f"tapewick.buses.{kind}")


@pytest.mark.parametrize("kind", NETWORK)
async def test_settings_choose_the_bus(kind: str) -> None:
    made = registry.bus(load({"bus.kind": kind, "bus.name": "x"}, environ={}, no_config=True).settings)
    assert type(made).__name__ == f"{kind.capitalize()}Bus"


def test_a_name_that_servers_would_take_for_a_pattern_is_refused() -> None:
    for name in ("a.b", "a*", ">", "a b", "", "é", "x" * 65):
        with pytest.raises(ConfigError, match=r"bus\.name"):
            load({"bus.name": name}, environ={}, no_config=True)


def test_credentials_are_not_shown() -> None:
    secrets = {one.key: one for one in SETTINGS if one.section in ("redis", "nats", "kafka") and one.secret}
    assert set(secrets) == {"redis.url", "nats.url", "kafka.password"}
    for key, text in (
        ("redis.url", "rediss://me:hush@db:6379/0"),
        ("nats.url", "tls://me:hush@a:4222,tls://me:hush@b:4222"),
        ("kafka.password", "hush"),
    ):
        assert "hush" not in str(shown(secrets[key], text))
