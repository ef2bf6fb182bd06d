"""SC24: who wrote, administered, changed or repaired something stands on record: structured, whole, without secrets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tapewick import audit
from tests.gateways.rig import BTC
from tests.security.conftest import Cli
from tests.security.rig import INGEST, locked, trade


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_sc24_writing_and_administering_by_key(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    audit.keep(str(path))
    try:
        async with locked(tmp_path, required=True) as server:
            admin, stranger = server.key("admin"), "tw_00000000_stranger"
            await server.post({"instrument": "hook:XYZ", "trades": [trade()]})
            await server.post({"instrument": "hook:XYZ", "trades": [trade()]}, stranger)
            await server.post({"instrument": "hook:XYZ", "trades": [trade()]}, server.key("read"))
            await server.post(b"{}", None, **{"webhook-signature": "v1,x"})
            await server.ask("POST", f"/v1/repair/{BTC}", admin)
            await server.ask("POST", "/v1/repair/x%0d%0a%7b%22audit%22:%22forged%22%7d", admin)
            await server.ask("GET", "/v1/instruments", admin)
            await server.ask("POST", "/nowhere", admin)
    finally:
        audit.keep("")
    told = lines(path)
    assert [(line["audit"], line["outcome"]) for line in told] == [
        (f"POST {INGEST}", 202),
        (f"POST {INGEST}", 401),
        (f"POST {INGEST}", 403),
        (f"POST {INGEST}", 401),
        (f"POST /v1/repair/{BTC}", 202),
    ]
    assert [line["who"] for line in told[1:4:2]] == ["unknown key", "signature"]
    assert told[0]["who"] == server.writer[:11] and told[4]["who"] == admin[:11]
    assert all(line["address"] == "127.0.0.1" and line["ts"].endswith("Z") for line in told)
    text = path.read_text()
    assert not [secret for secret in (server.writer, admin, stranger) if secret[12:] in text]
    assert path.stat().st_mode & 0o077 == 0


async def test_sc24_text_of_a_client_begins_no_line(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    audit.keep(str(path))
    try:
        audit.record("POST /x\r\n{}\u2028", who="a\nb", outcome=202, address="\x1b[2J", more={"k": "v\n"})
        audit.record("next", who="c", outcome="ok")
    finally:
        audit.keep("")
    assert path.read_bytes().count(b"\n") == 2 and b"\x1b" not in path.read_bytes()
    assert lines(path)[0]["who"] == "a\nb"


def test_sc24_commands_and_settings(tmp_path: Path, cli: Cli) -> None:
    """Keys made and ended, a doctor, a repair that failed, and the settings a server begins with."""
    (tmp_path / "tapewick.toml").write_text(
        '[log]\naudit = "audit.jsonl"\n[server]\ntokens = ["tok_0123456789abcdef"]\n[data]\ndir = "d"\n'
    )
    made = cli("keys", "create", "--scope", "read", "--note", "a\r\nb")
    cli("keys", "revoke", made.out[:11])
    cli("keys", "list")
    cli("doctor", "--repair")
    failed = cli("repair", "sim:NONE")
    cli("serve", "--port", "99999")
    cli("serve", "--source", "nonsense", "--port", "0")
    told = lines(tmp_path / "audit.jsonl")
    assert [line["audit"] for line in told] == ["keys", "keys", "doctor", "repair", "settings"]
    assert told[0]["asked"]["action"] == "create" and told[1]["asked"]["id"] == made.out[:11]
    assert told[2]["asked"] == {"repair": True} and told[2]["outcome"] == 0
    assert told[3]["outcome"] == failed.code != 0 and told[3]["asked"]["instruments"] == ["sim:NONE"]
    assert told[4]["settings"]["server.tokens"] == ["***"] and told[4]["settings"]["data.dir"] == "d"
    text = (tmp_path / "audit.jsonl").read_text()
    assert "tok_0123456789abcdef" not in text and made.out.strip() not in text


def test_sc24_a_file_that_cannot_be_written_is_explained(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "tapewick.toml").write_text('[log]\naudit = "no/such/folder/audit"\n')
    done = cli("doctor")
    assert done.code == 2 and "log.audit" in done.err
