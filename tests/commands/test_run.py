"""``tapewick run``: what it refuses, what a role says when it is ready, and how it ends."""

from __future__ import annotations

import re
import signal
import socket
from pathlib import Path

import httpx2
import pytest

from tapewick.cli import main
from tests.e2e.server import Server
from tests.parts.postgres import PostgresServer
from tests.parts.redis import RedisServer, redis_server  # noqa: F401

POSTGRES = {"TAPEWICK_STORE__KIND": "postgres"}
REDIS = {"TAPEWICK_BUS__KIND": "redis"}
CHAIN = {
    "TAPEWICK_CHAIN__ID": "31337",
    "TAPEWICK_CHAIN__CONTRACTS": "0x" + "C0" * 20,
    "TAPEWICK_CHAIN__RPC_URLS": "http://127.0.0.1:1/key",
}


@pytest.mark.parametrize(
    ("words", "env", "says"),
    [
        ("scan", POSTGRES | REDIS, "set chain.contracts (0x…), chain.rpc_urls (http://…) and chain.id"),
        ("scan", REDIS | CHAIN, "one process owns the embedded store"),
        ("scan", POSTGRES | CHAIN, "the memory bus ends with its process"),
        ("scan --shard 0/2", POSTGRES | REDIS | CHAIN, "one follows each contract"),
        ("scan --source binance:BTCUSDT", POSTGRES | REDIS | CHAIN, "no --source"),
        ("scan", CHAIN | {"TAPEWICK_CHAIN__CONTRACTS": "0x12"}, "chain.contracts (environment): '0x12' is no address"),
        ("scan", CHAIN | {"TAPEWICK_CHAIN__RPC_URLS": "ftp://key@host"}, "chain.rpc_urls (environment): entry 1"),
        ("scan", CHAIN | {"TAPEWICK_CHAIN__ID": "0"}, "chain.id is 0"),
        ("scan", CHAIN | {"TAPEWICK_CHAIN__RPC_URLS": ""}, "chain.rpc_urls no node"),
        ("scan", CHAIN | {"TAPEWICK_CHAIN__POLL_S": "0"}, "chain.poll_s is 0.0"),
        ("engine", REDIS, "one process owns the embedded store"),
        ("gateway", REDIS, "tapewick serve"),
        ("collect", POSTGRES, "the memory bus ends with its process"),
        ("engine --shard 2/2", POSTGRES | REDIS, "the last is 1/2"),
        ("engine --shard 0/0", POSTGRES | REDIS, "no shard 0/0"),
        ("engine --shard one", POSTGRES | REDIS, "write i/n"),
        ("engine --shard 0/17", POSTGRES | REDIS, "only 16 partitions"),
        ("gateway --shard 0/2", POSTGRES | REDIS, "every gateway serves everything"),
        ("engine --source binance:BTCUSDT", POSTGRES | REDIS, "no --source"),
        ("broker", POSTGRES | REDIS, "'broker'"),
        ("", POSTGRES | REDIS, "ROLE"),
    ],
)
def test_what_cannot_work_is_refused_with_a_remedy(
    words: str,
    env: dict[str, str],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert main(["run", *words.split()]) == 2
    out, err = capsys.readouterr()
    assert says in err and len(err.splitlines()) == 1 and not out
    assert not list(tmp_path.iterdir()), "nothing was made"


def test_a_database_must_be_named(tmp_path: Path) -> None:
    with Server("run", "engine", "--no-config", TAPEWICK_DATA__DIR=str(tmp_path), **POSTGRES, **REDIS) as process:
        assert process.process.wait(60) == 2
        assert "store.dsn is empty" in process.line("tapewick: ")


@pytest.mark.parametrize("role", ["engine", "gateway", "scan"])
def test_variables_that_all_roles_share_are_for_those_that_take_them(role: str, tmp_path: Path) -> None:
    shared = {**POSTGRES, **REDIS, **CHAIN, "TAPEWICK_SOURCE": "binance:BTCUSDT"}
    shared |= {} if role == "engine" else {"TAPEWICK_SHARD": "0/2"}
    (tmp_path / "tapewick.env").write_text("".join(f"{name}={value}\n" for name, value in shared.items()))
    words = ("run", role, "--no-config", "--env-file", tmp_path / "tapewick.env", "--data", tmp_path)
    with Server(*words) as process:
        assert process.process.wait(60) == 2
        assert "store.dsn is empty" in process.line("tapewick: ")


def test_a_role_that_waits_for_its_database_ends_when_asked(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        dsn = f"postgresql://nobody@127.0.0.1:{silent.getsockname()[1]}/none"
        env = {**POSTGRES, **REDIS, "TAPEWICK_STORE__DSN": dsn, "TAPEWICK_DATA__DIR": str(tmp_path)}
        with Server("run", "gateway", "--no-config", **env) as process:
            link, _ = silent.accept()  # and no answer
            with link:
                assert process.stop(signal.SIGTERM) == 143


def env_of(postgres: PostgresServer, redis: RedisServer, folder: Path) -> dict[str, str]:
    return {
        **POSTGRES,
        **REDIS,
        "TAPEWICK_STORE__DSN": postgres.database(),
        "TAPEWICK_REDIS__URL": redis.url,
        "TAPEWICK_BUS__NAME": f"t{folder.name}".replace("_", "-")[:40],
        "TAPEWICK_ADMIN__ENABLED": "true",
        "TAPEWICK_ADMIN__PORT": "0",
        "TAPEWICK_DATA__DIR": str(folder / "data"),
        "TAPEWICK_BINANCE__REST_URL": "http://127.0.0.1:9",
        "TAPEWICK_BINANCE__WS_URL": "ws://127.0.0.1:9",
    }


@pytest.mark.parametrize(
    ("words", "share"),
    [
        ("engine", "partitions by lease, of 16"),
        ("engine --shard 1/8", "partitions 1 9 of 16"),
        ("collect", "all 16 partitions"),
    ],
)
def test_a_role_says_where_it_stands_and_ends_when_asked(
    words: str,
    share: str,
    postgres: PostgresServer,
    redis_server: RedisServer,  # noqa: F811
    tmp_path: Path,
) -> None:
    role = words.partition(" ")[0]
    with Server("run", *words.split(), "--no-config", **env_of(postgres, redis_server, tmp_path)) as process:
        line = process.line(f"run {role}: ")
        assert re.search(rf"http://\S+ +.*redis bus, postgres store, holder {role}-\S+, {share}$", line), line
        url = re.search(r"http://[\d.:]+", line)
        assert url is not None
        assert httpx2.get(url[0] + "/health/live").json() == {"status": "ok"}
        assert "tapewick_leases_held" in httpx2.get(url[0] + "/metrics").text
        assert httpx2.get(url[0] + "/v1/instruments").status_code == 404
        ready = httpx2.get(url[0] + "/health/ready")
        if role == "engine":
            assert ready.json() == {"status": "ready"}
        else:  # its venue cannot be reached
            process.wait_for(lambda: "disconnected" in httpx2.get(url[0] + "/health/ready").text)
            assert httpx2.get(url[0] + "/health/ready").status_code == 503
        assert process.stop(signal.SIGTERM) == 143
    assert len(process.lines) == 1 or role == "collect", process.lines


def test_a_gateway_serves_and_names_its_url(
    postgres: PostgresServer,
    redis_server: RedisServer,  # noqa: F811
    tmp_path: Path,
) -> None:
    env = env_of(postgres, redis_server, tmp_path) | {"TAPEWICK_ADMIN__ENABLED": "false"}
    with Server("run", "gateway", "--port", "0", "--no-config", **env) as process:
        process.ready()
        assert process.get("/v1/instruments") == {"instruments": []}
        assert process.get("/v1/watch") == {"watched": []}
        assert process.stop(signal.SIGINT) == 130
