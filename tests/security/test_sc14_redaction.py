"""SC14: credentials inside addresses and settings are shown nowhere: logs, metrics, errors, findings, answers."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import httpx2

from tapewick.secrecy import learn, masked
from tests.e2e.server import Server
from tests.parts.child import free_ports
from tests.security.conftest import Cli

KEY = "k3yInThePath0123456789"
PASSWORD = "hunter2hunter2"
SECRETS = (KEY, PASSWORD, "sp%40ce%20word", "sp@ce word", "tok_0123456789abcdef", "whsec_" + "QUJD" * 12)


def settings(port: int) -> str:
    return f"""
[server]
tokens = ["tok_0123456789abcdef"]
[ingest]
secrets = ["whsec_{"QUJD" * 12}"]
[binance]
rest_url = "http://me:{PASSWORD}@127.0.0.1:{port}/v3/{KEY}?apikey={KEY}"
ws_url = "ws://me:{PASSWORD}@127.0.0.1:{port}/v3/{KEY}"
[store]
dsn = "postgresql://me:sp%40ce%20word@127.0.0.1:{port}/db?password={PASSWORD}"
[redis]
url = "rediss://:{PASSWORD}@127.0.0.1:{port}/0"
[nats]
url = "tls://me:{PASSWORD}@127.0.0.1:{port},tls://me:{PASSWORD}@127.0.0.1:{port}"
[kafka]
password = "{PASSWORD}"
"""


def check(*said: str) -> None:
    for text in said:
        for secret in SECRETS:
            assert secret not in text, text


def test_sc14_commands_tell_no_secret(tmp_path: Path, cli: Cli) -> None:
    """Every address leads nowhere: the errors name the place, not the credentials."""
    [port] = free_ports(1)
    (tmp_path / "tapewick.toml").write_text(settings(port))
    told = {}
    for name, words in {
        "config": ("config", "show"),
        "json": ("config", "show", "--json"),
        "doctor": ("doctor", "--online", "--data", "d"),
        "backfill": ("backfill", "binance:BTCUSDT", "--from", "2024-01-01", "--data", "d"),
    }.items():
        done = cli(*words)
        told[name] = done.out + done.err
    assert "***@127.0.0.1" in told["config"] and "127.0.0.1" in told["doctor"]
    check(*told.values())


def test_sc14_a_store_or_bus_that_refuses_is_named_without_its_password(tmp_path: Path, cli: Cli) -> None:
    [port] = free_ports(1)
    for kind, more in (
        ("bus", f'[bus]\nkind = "redis"\n[redis]\nurl = "redis://:{PASSWORD}@127.0.0.1:{port}/0"\n'),
        ("bus", f'[bus]\nkind = "nats"\n[nats]\nurl = "nats://me:{PASSWORD}@127.0.0.1:{port}"\n'),
        ("store", f'[store]\nkind = "postgres"\ndsn = "postgresql://me:{PASSWORD}@127.0.0.1:{port}/db"\n'),
        ("store", f'[store]\nkind = "postgres"\ndsn = "nonsense://me:{PASSWORD}@127.0.0.1:{port}/db"\n'),
        ("store", f'[store]\nkind = "postgres"\ndsn = "{PASSWORD}"\n'),
    ):
        (tmp_path / "tapewick.toml").write_text(more)
        done = cli("demo", "--no-open", "--port", "0", "--data", "d")
        assert done.code in (1, 2, 3) and kind in (done.err + more), done.err
        check(done.out, done.err)


def test_sc14_a_running_server_tells_no_secret(tmp_path: Path) -> None:
    """Its venue's address holds keys and answers nonsense: logs, metrics and health speak of the host alone."""
    with socket.create_server(("127.0.0.1", 0)) as venue:
        port = venue.getsockname()[1]
        config = tmp_path / "tapewick.toml"
        config.write_text(
            f'[binance]\nrest_url = "http://me:{PASSWORD}@127.0.0.1:{port}/v3/{KEY}"\n'
            f'ws_url = "ws://me:{PASSWORD}@127.0.0.1:{port}/v3/{KEY}"\n[log]\nlevel = "debug"\njson = true\n'
        )
        venue.settimeout(60)
        words = ("serve", "--port", "0", "--data", str(tmp_path / "d"), "--config", str(config))
        with Server(*words) as server:
            url = server.ready()
            link, _ = venue.accept()
            with link:
                link.settimeout(60)
                link.recv(65_536)
                link.sendall(b"HTTP/1.1 418 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
            server.wait_for(lambda: server.get("/health")["conditions"])
            check(*(httpx2.get(url + path, timeout=30).text for path in ("/metrics", "/health", "/health/ready")))
            assert server.stop() == 143
    check(*server.lines)


def test_sc14_the_value_of_a_misspelt_flag_is_not_printed(cli: Cli) -> None:
    for words in (
        ("serve", "--tokn", PASSWORD),
        ("serve", f"--tokn={PASSWORD}"),
        ("candles", "--tokn", PASSWORD, "sim:BTCUSDT", "1m"),
        ("candles", "sim:BTCUSDT", "--tokn", PASSWORD),
        ("keys", "revoke", "--apikey", PASSWORD),
        (f"--tokn={PASSWORD}",),
    ):
        done = cli(*words)
        assert done.code == 2 and "unrecognized" in done.err
        assert PASSWORD not in done.out + done.err


def test_sc14_what_is_recognised() -> None:
    learn(f"https://rpc.example/v3/{KEY}?token=another-secret&limit=100000")
    learn("a-plain-secret")
    for text, expected in (
        ("redis://:pw@h:1/0 is away", "redis://***@h:1/0 is away"),
        ("tls://me:pw@a:1,tls://me:pw@b:2", "tls://***@a:1,tls://***@b:2"),
        (f"GET /v3/{KEY} failed", "GET /v3/*** failed"),
        ("token=another-secret limit=100000", "token=*** limit=100000"),
        ("it said a-plain-secret!", "it said ***!"),
        ("https://example.org/a@b stays", "https://example.org/a@b stays"),
        ("nothing to hide", "nothing to hide"),
    ):
        assert masked(text) == expected
    assert json.loads(masked(json.dumps({"a": "a-plain-secret"}))) == {"a": "***"}
