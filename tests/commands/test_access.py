"""Every command that reads a server can show a token and trust an authority; the token is never printed."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

import pytest

from tapewick.commands import COMMANDS, parser_of
from tapewick.commands.options import Access, access
from tapewick.errors import ConfigError
from tests.commands.tapes import tapewick
from tests.conformance.tls import certificate
from tests.gateways.rig import BTC, running

TOKEN = "long-enough-for-a-token-of-a-test"


def test_every_command_with_an_address_takes_a_token_and_an_authority() -> None:
    reading = [name for name in COMMANDS if "--url" in parser_of(name)._option_string_actions]
    assert {"candles", "trades", "coverage", "tail", "book", "export", "repair", "backfill", "verify", "feed"} <= set(
        reading
    )
    for name in reading:
        assert {"--token", "--tls-ca"} <= set(parser_of(name)._option_string_actions), name


def test_help_does_not_tell_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAPEWICK_TOKEN", TOKEN)
    assert TOKEN not in parser_of("candles").format_help()


def test_where_the_token_comes_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("TAPEWICK_TOKEN", "TAPEWICK_TOKEN_FILE", "TAPEWICK_TLS_CA"):
        monkeypatch.delenv(name, raising=False)
    words = ["sim:BTCUSDT", "1m"]

    def read(*more: str) -> Access:
        return access(parser_of("candles").parse_args([*words, *more]))

    assert read() == access(argparse.Namespace()) == Access(None, None)
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    monkeypatch.setenv("TAPEWICK_TOKEN_FILE", str(file))
    assert read("--tls-ca", "ca.pem") == Access(TOKEN, "ca.pem")
    monkeypatch.setenv("TAPEWICK_TOKEN", "of-the-variable")
    assert read().token == "of-the-variable"
    assert read("--token", "of-the-flag").token == "of-the-flag"
    monkeypatch.delenv("TAPEWICK_TOKEN")
    file.write_text("\n")
    with pytest.raises(ConfigError, match="TAPEWICK_TOKEN_FILE=.* is empty"):
        read()
    monkeypatch.setenv("TAPEWICK_TOKEN_FILE", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="TAPEWICK_TOKEN_FILE=.*none cannot be read"):
        read()


async def test_commands_read_a_server_behind_token_and_tls(tmp_path: Path) -> None:
    made = await asyncio.to_thread(certificate, tmp_path)
    cert, key = str(made.cert), str(made.key)
    async with running(tmp_path / "data", ids=(BTC,), tokens=[TOKEN], tls_cert=cert, tls_key=key) as rig:
        await rig.tell(1, 10)
        server = ("--url", rig.gateway.url, "--tls-ca", str(made.authority))
        for command in (("candles", BTC, "1m"), ("trades", BTC), ("coverage", BTC), ("export", BTC), ("tail", BTC)):
            done = await tapewick(*command, *server, "--token", TOKEN, cwd=tmp_path)
            assert done.code == 0 and BTC in done.out, done.err
        for words in (("export", BTC), ("repair", BTC), ("book", BTC), ("tail", BTC)):
            done = await tapewick(*words, *server, "--token", TOKEN[::-1], cwd=tmp_path)
            assert done.code == 1 and "token" in done.err, done.err
            assert TOKEN[::-1] not in done.err and TOKEN not in done.err
        done = await tapewick("export", BTC, "--url", rig.gateway.url, "--token", TOKEN, cwd=tmp_path)
        assert done.code == 3 and "--tls-ca" in done.err
        done = await tapewick("trades", BTC, *server[:2], "--tls-ca", "none.pem", cwd=tmp_path)
        assert done.code == 2 and "there is no file none.pem" in done.err
