"""``tapewick feed`` against a real server: it keeps to the quota, and proves what was acknowledged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tapewick.commands import parser_of
from tapewick.commands.feed import token
from tapewick.keys import KeyFile
from tests.e2e.server import Server


def feed(url: str, key: str, *words: str, name: str = "--token") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tapewick", "feed", "--url", url, name, key, "--no-config", "--json", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_what_is_acknowledged_is_there_once_and_the_quota_is_kept(tmp_path: Path) -> None:
    file = KeyFile(tmp_path)
    (_, key), (_, reader) = file.create(["ingest", "read"]), file.create(["read"])
    limits = {"TAPEWICK_INGEST__TRADES_PER_S": "5", "TAPEWICK_INGEST__MAX_ITEMS": "100"}
    with Server("demo", "--data", tmp_path, "--port", "0", "--no-config", **limits) as server:
        server.ready()
        for round, count in ((1, 150), (2, 20)):  # the second continues the ids of the first
            done = feed(server.url, key, "--count", str(count), "--batch", "100", "--rate", "100000", "--verify")
            assert done.returncode == 0, done.stderr
            told = json.loads(done.stdout)
            assert told["acknowledged"] == told["accepted"] == told["verified"] == count
            assert told["missing"] == told["doubled"] == told["rejected"] == 0
            assert round == 2 or told["over_quota"] > 0  # two batches of 100 and 50 are 10 s of quota apart
        assert server.get("/v1/coverage/hook:FEED")["ranges"][0][1] == 170
        refused = feed(server.url, reader, "--count", "1", name="--key")
        assert refused.returncode == 3 and "403" in refused.stderr and "ingest" in refused.stderr
    assert feed(server.url, "", "--count", "1").returncode == 2, "no key at all"
    gone = feed(server.url, key, "--count", "1", "--patience", "0")
    assert gone.returncode == 3 and "cannot be reached" in gone.stderr


def test_a_key_is_a_token_by_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TAPEWICK_TOKEN", "TAPEWICK_TOKEN_FILE", "TAPEWICK_KEY"):
        monkeypatch.delenv(name, raising=False)

    def shown(*words: str) -> str:
        return token(parser_of("feed").parse_args([*words]))

    assert shown() == ""
    assert shown("--key", "a") == shown("--token", "a") == shown("--key", "b", "--token", "a") == "a"
    monkeypatch.setenv("TAPEWICK_KEY", "k")
    assert shown() == "k"
    monkeypatch.setenv("TAPEWICK_TOKEN", "t")
    assert shown() == "t"
    assert shown("--key", "typed") == "typed"
    assert shown("--key", "typed", "--token", "too") == "too"
