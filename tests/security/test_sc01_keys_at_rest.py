"""SC1: keys are 256 random bits, shown once, kept as a hash with a public prefix, compared in constant time."""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64decode
from hashlib import sha256
from pathlib import Path

import pytest

from tests.commands.tapes import tapewick
from tests.security.rig import locked


async def test_sc01_a_key_is_printed_once_and_kept_hashed(tmp_path: Path) -> None:
    made = [await tapewick("keys", "create", "--scope", "read", "--data", "d", cwd=tmp_path) for _ in range(2)]
    tokens = [done.out.strip() for done in made]
    for token in tokens:
        mark, id, secret = token.split("_", 2)
        assert mark == "tw" and len(urlsafe_b64decode(secret + "=")) == 32 and len(id) == 8
    assert tokens[0] != tokens[1]
    kept = "".join(path.read_text("latin-1") for path in (tmp_path / "d").iterdir() if path.is_file())
    listed = await tapewick("keys", "list", "--data", "d", "--json", cwd=tmp_path)
    for token in tokens:
        secret = token.split("_", 2)[2]
        assert sha256(token.encode()).hexdigest() in kept and secret not in kept
        assert token[:11] in listed.out and secret not in listed.out + listed.err
    for path in (tmp_path / "d").glob("keys.json"):
        assert path.stat().st_mode & 0o077 == 0, "others of this machine cannot read it"


async def test_sc01_all_keys_are_compared_in_constant_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with locked(tmp_path, required=True) as server:
        keys = [server.key("read") for _ in range(3)]
        compared: list[str] = []
        real = hmac.compare_digest

        def spied(a: str, b: str) -> bool:
            compared.append(str(b))
            return real(a, b)

        monkeypatch.setattr(hmac, "compare_digest", spied)
        assert (await server.ask("GET", "/v1/instruments", keys[0])).status_code == 200
        assert {sha256(key.encode()).hexdigest() for key in keys} <= set(compared), "it does not stop at a match"
