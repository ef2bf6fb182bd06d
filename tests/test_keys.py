"""API keys: shown once, kept hashed, ended by time or by hand, and seen by a running server at once."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapewick.clock import ManualClock
from tapewick.config import load
from tapewick.errors import ConfigError, Forbidden, Unauthorized
from tapewick.gateways._auth import Guard
from tapewick.keys import SCOPES, Grant, KeyFile

TOKEN = "tok_0123456789abcdef"


def test_a_key_is_kept_hashed_and_for_its_owner_only(tmp_path: Path) -> None:
    key, token = KeyFile(tmp_path / "new").create(["ingest"])
    path = tmp_path / "new" / "keys.json"
    assert token not in path.read_text() and token.removeprefix(key.id) not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(token) > 43 and token.startswith(key.id)
    assert KeyFile(tmp_path / "new").create(["ingest"])[1] != token


def test_a_running_server_sees_new_and_revoked_keys(tmp_path: Path) -> None:
    seen, other = KeyFile(tmp_path), KeyFile(tmp_path)
    guard = Guard(keys=seen, required=True)
    key, token = other.create(["read"])
    assert guard.check(token).id == key.id
    other.revoke(key.id)
    with pytest.raises(Unauthorized):
        guard.check(token)
    with pytest.raises(ConfigError, match="no key"):
        other.revoke("tw_nobody")


def test_a_key_expires(tmp_path: Path) -> None:
    clock = ManualClock(10**18)
    file = KeyFile(tmp_path, clock)
    _, token = file.create(["read"], days=1)
    clock.advance(86_399)
    assert file.grant(token) is not None
    clock.advance(2)
    assert file.grant(token) is None


@pytest.mark.parametrize("scopes", [[], ["write"], ["read", "Admin"]])
def test_unknown_scopes_are_refused(tmp_path: Path, scopes: list[str]) -> None:
    with pytest.raises(ConfigError, match="scope"):
        KeyFile(tmp_path).create(scopes)


@pytest.mark.parametrize("text", ["", "{}", '{"keys":[{"id":"x"}]}', '{"keys":7}'])
def test_a_damaged_file_is_no_open_door(tmp_path: Path, text: str) -> None:
    (tmp_path / "keys.json").write_text(text)
    with pytest.raises(ConfigError, match="keys.json"):
        KeyFile(tmp_path).grant("anything")


def test_scopes_are_named_where_they_lack(tmp_path: Path) -> None:
    file = KeyFile(tmp_path)
    tokens = {scope: file.create([scope])[1] for scope in SCOPES}
    guard = Guard([TOKEN], file)
    for wanted in SCOPES:
        assert guard.check(TOKEN, wanted) and guard.check(tokens["admin"], wanted)
        for scope in ("read", "ingest"):
            if scope == wanted:
                guard.check(tokens[scope], wanted)
            else:
                with pytest.raises(Forbidden, match=wanted):
                    guard.check(tokens[scope], wanted)
    assert not guard.admits(tokens["ingest"])


def test_writing_is_never_open_to_everybody(tmp_path: Path) -> None:
    guard = Guard(keys=KeyFile(tmp_path))
    guard.check(None)
    with pytest.raises(Unauthorized, match="tapewick keys create"):
        guard.check(None, "ingest")


@given(st.text(max_size=80))
def test_no_other_text_is_a_key(text: str) -> None:
    guard = Guard([TOKEN], required=True)
    if text != TOKEN:
        with pytest.raises(Unauthorized):
            guard.check(text)


def test_a_grant_is_for_its_instruments() -> None:
    assert Grant("k", frozenset(), "hook:A*").covers("hook:ABC")
    assert not Grant("k", frozenset(), "hook:A*").covers("hook:BCD")
    assert not Grant("k", frozenset(), "hook:A").covers("hook:AB")


def test_an_open_address_needs_tokens_or_keys() -> None:
    flags = {"server.host": "0.0.0.0"}
    with pytest.raises(ConfigError, match="server.require_keys"):
        load(flags, environ={}, no_config=True)
    assert load({**flags, "server.require_keys": "true"}, environ={}, no_config=True).settings.server.require_keys
