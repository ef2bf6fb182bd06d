"""SC9: an instrument is one of the table, or a short plain name: never a path, a subject, a statement or a log line."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from tapewick.commands.output import configure_logs
from tapewick.settings import Log
from tests.gateways.rig import BTC
from tests.security.rig import locked

HOSTILE = (
    "hook:'; DROP TABLE trades; --",
    'hook:"x"',
    "hook:x\r\nevil: 1",
    "hook:x\x00",
    "hook:../../etc/passwd",
    "hook:/etc/passwd",
    "hook:*",
    "hook:>",
    "hook:a b",
    "hook:" + "X" * 33,
    "hook:é",
    "hook:ﬁ",  # another letter after normalisation
    "hook:А",  # a Cyrillic A
    "hook:\u202eXYZ",
    "hook:x\x1b[31m",
    "hook:",
    "hook:{0}",
    "hook:%(x)s",
    "hook:${jndi:ldap://x}",
    "sim:NEW",
    "binance:BTCUSDT",
    "nothing",
)


async def test_sc09_no_hostile_name_becomes_an_instrument(tmp_path: Path) -> None:
    async with locked(tmp_path) as server:
        for name in HOSTILE:
            told = await server.verdict(name)
            assert told.get("verdict") == "rejected" or told.get("status") == 400, (name, told)
        assert {row["id"] for row in (await server.rig.get("/v1/instruments"))["instruments"]} == {BTC}
        assert (await server.verdict("hook:fine"))["verdict"] == "accepted"


async def test_sc09_no_hostile_name_reaches_the_store(tmp_path: Path) -> None:
    async with locked(tmp_path) as server:
        await server.rig.tell(1, 10)
        for name in HOSTILE:
            text = quote(name, safe="")
            for path in (
                f"/v1/trades?instrument={text}",
                f"/v1/candles?instrument={text}&tf=1m",
                f"/v1/ticker/{text}",
                f"/v1/coverage/{text}",
                f"/v1/book/{text}",
                f"/v1/export/trades?instrument={text}",
                f"/v1/sse?channels=trade@{text}",
                f"/api/v3/trades?symbol={text}",
                f"/udf/symbols?symbol={text}",
            ):
                answer = await server.ask("GET", path)
                assert answer.status_code in (400, 404) or answer.json().get("s") == "error", (path, answer.text)
            async with server.rig.ws() as c:
                c.subscribe(f"trade@{name}")
                told = await c.until(lambda c: c.of("subscribed") or c.of("error") or c.closed)
                assert not c.of("snapshot"), told
        assert len((await server.rig.get(f"/v1/trades?instrument={BTC}"))["trades"]) == 10


async def test_sc09_no_text_of_a_client_begins_a_log_line(tmp_path: Path, capfd: object) -> None:
    """At the most talkative level: a line is an event of ours, whatever the names in it."""
    import structlog

    before = structlog.get_config()
    configure_logs(Log(level="debug"))
    try:
        async with locked(tmp_path) as server:
            evil = "x\r\n2026-01-01T00:00:00Z [error    ] the store is gone\x1b[2J"
            await server.verdict("hook:" + evil)
            await server.post({"instrument": "hook:XYZ", "trades": [{"x": evil}]}, source=quote(evil))
            await server.ask("GET", "/v1/ticker/" + quote(evil, safe=""))
            structlog.get_logger().warning(evil, detail=evil, nested={"a": [evil]})
            try:
                raise ValueError(evil)
            except ValueError as error:
                structlog.get_logger().error("failed", exc_info=error)
    finally:
        structlog.configure(**before)
    said = capfd.readouterr().err  # type: ignore[attr-defined]
    assert "the store is gone" in said and "\x1b" not in said and "\r" not in said
    assert not [line for line in said.splitlines() if line.startswith("2026-01-01")], said
