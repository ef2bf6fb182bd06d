"""``tapewick keys``: a key is printed once, the list never shows it, and a revoked one is told apart."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tapewick.cli import main
from tapewick.keys import KeyFile
from tapewick.stores.postgres import migrate
from tests.parts.postgres import PostgresServer


def run(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> str:
    capsys.readouterr()
    assert main(["keys", *map(str, words), "--no-config"]) == code
    out, err = capsys.readouterr()
    return out if code == 0 else err


def test_create_list_revoke(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = ("--scope", "read,ingest", "--instruments", "hook:*", "--days", "30", "--note", "mine")
    token = run(capsys, "create", "--data", tmp_path, *told).strip()
    id = token[:11]
    grant = KeyFile(tmp_path).grant(token)
    assert grant is not None and grant.scopes == {"read", "ingest"} and grant.instruments == "hook:*"
    listed = run(capsys, "list", "--data", tmp_path)
    assert id in listed and "usable" in listed and "mine" in listed and token not in listed
    assert id in run(capsys, "revoke", id, "--data", tmp_path)
    assert KeyFile(tmp_path).grant(token) is None
    (row,) = map(json.loads, run(capsys, "list", "--data", tmp_path, "--json").splitlines())
    assert (row["state"], row["id"]) == ("revoked", id) and "digest" not in row


def test_json_tells_the_new_key_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = json.loads(run(capsys, "create", "--data", tmp_path, "--json"))
    assert row["scopes"] == "ingest" and row["expires"] == "never"
    assert KeyFile(tmp_path).grant(row["key"]) is not None


def test_who_sends_with_a_key_is_itself_unless_another_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, source in ((), None), (("--source", "desk"), "desk"), (("--source", ""), "shared"):
        row = json.loads(run(capsys, "create", *words, "--data", tmp_path, "--json"))
        assert row["source"] == (source or row["id"])
        grant = KeyFile(tmp_path).grant(row["key"])
        assert grant is not None and grant.source == ("" if source == "shared" else row["source"])
    (tmp_path / "keys.json").write_text((tmp_path / "keys.json").read_text().replace('"source": "desk"', '"note": ""'))
    told = [json.loads(line) for line in run(capsys, "list", "--data", tmp_path, "--json").splitlines()]
    assert told[1]["source"] == "shared", "a key from before there were sources"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("create", "--scope", "write"), "write"),
        (("create", "--days", "-1"), "number of days"),
        (("create", "--source", "two words"), "--source"),
        (("create", "--source", "x" * 64), "--source"),
        (("revoke",), "which key"),
        (("revoke", "tw_nobody"), "tw_nobody"),
        (("delete",), "delete"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str], says: str) -> None:
    assert says in run(capsys, *words, "--data", tmp_path, code=2)


def test_keys_of_a_shared_store_lie_in_it(
    postgres: PostgresServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAPEWICK_STORE__KIND", "postgres")
    monkeypatch.setenv("TAPEWICK_STORE__DSN", dsn := postgres.database())
    monkeypatch.setenv("TAPEWICK_DATA__DIR", str(tmp_path))
    assert "migrate up" in run(capsys, "create", code=1)
    asyncio.run(migrate(dsn))
    token = run(capsys, "create", "--scope", "ingest", "--instruments", "hook:*", "--days", "30").strip()
    assert token[:11] in run(capsys, "list") and list(tmp_path.iterdir()) == []
    stored = postgres.sql(f"SELECT * FROM {postgres.schema_of(dsn)}.api_keys")
    assert token[:11] in stored and token not in stored and token[12:] not in stored
    assert token[:11] in run(capsys, "revoke", token[:11])
    (row,) = map(json.loads, run(capsys, "list", "--json").splitlines())
    assert (row["state"], row["scopes"], row["instruments"]) == ("revoked", "ingest", "hook:*")
    assert "tw_nobody" in run(capsys, "revoke", "tw_nobody", code=2)
    monkeypatch.setenv("TAPEWICK_STORE__DSN", "postgresql://nobody@127.0.0.1:1/none")
    assert "cannot be reached" in run(capsys, "list", code=1)
    assert run(capsys, "list", "--store", "duckdb").splitlines()[0].startswith("id")
