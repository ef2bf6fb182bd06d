"""``POST /v1/ingest/trades`` over real sockets: verdicts, credentials, limits, repetition."""

from __future__ import annotations

import asyncio
import gzip
from base64 import b64encode
from collections.abc import AsyncIterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import numpy as np
import pytest

from tapewick import metrics
from tapewick.gateways._auth import Guard
from tapewick.gateways._ingest_signature import secret_of, signature
from tapewick.gateways.ingest import Options
from tapewick.keys import KeyFile
from tests.gateways.rig import T0, Rig, running

MS = 1_000_000
PATH = "/v1/ingest/trades"
OLD, NEW = (f"whsec_{b64encode(bytes(range(n, n + 32))).decode()}" for n in (1, 2))
HOOK = "hook:XYZ"
NOW = T0 // MS + 86_400_000


class Door:
    """A rig that can be written to, and its keys."""

    def __init__(self, rig: Rig, keys: KeyFile) -> None:
        self.rig, self.keys = rig, keys
        self.token = keys.create(["ingest"])[1]

    async def post(self, body: Any, token: str | None = "", **headers: str) -> httpx2.Response:
        content = body if isinstance(body, bytes) else msgspec.json.encode(body)
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            told["authorization"] = f"Bearer {token or self.token}"
        async with self.rig.http as client:
            return await client.post(PATH, content=content, headers=told, timeout=60)

    async def verdicts(self, body: Any, **more: str) -> list[Any]:
        answer = await self.post(body, **more)
        assert answer.status_code == 202, answer.text
        told = answer.json()
        verdicts = [one["verdict"] for one in told["verdicts"]]
        assert [one["index"] for one in told["verdicts"]] == list(range(len(verdicts)))
        counts = {name: told[name] for name in ("accepted", "duplicates", "queued", "rejected")}
        names = ("accepted", "duplicate", "queued", "rejected")
        assert list(counts.values()) == [verdicts.count(name) for name in names]
        return verdicts

    async def stored(self, id: str = HOOK) -> list[Any]:
        return (await self.rig.get(f"/v1/trades?instrument={id}&limit=1000"))["trades"]  # type: ignore[no-any-return]


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    async with opened(tmp_path) as made:
        yield made


def opened(folder: Path, **options: Any) -> Any:
    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def work() -> AsyncIterator[Door]:
        keys = KeyFile(folder)
        readiness = options.pop("readiness", lambda: None)
        ingest = Options(folder, **options)
        async with running(folder / "data", guard=Guard(keys=keys), ingest=ingest, readiness=readiness) as rig:
            yield Door(rig, keys)

    return work()


def trade(id: Any, **changes: Any) -> dict[str, Any]:
    made = {"trade_id": id, "price": "61685.99", "size": "0.25", "ts_event": NOW - 1000, "side": "buy", **changes}
    return {name: value for name, value in made.items() if value is not None}


def body(*trades: Any, **more: Any) -> dict[str, Any]:
    return {"instrument": HOOK, "id_kind": "contiguous", "trades": list(trades), **more}


# -- verdicts ----------------------------------------------------------------------------------


async def test_accepted_trades_are_in_the_store_exactly(door: Door) -> None:
    before = metrics.REGISTRY.get_sample_value("tapewick_ingest_trades_total", {"verdict": "accepted"}) or 0
    assert await door.verdicts(body(trade(1), trade(2, price="7", side="sell"), trade(3, size="0.00000001"))) == (
        ["accepted"] * 3
    )
    rows = await door.stored()
    assert [(row["trade_id"], row["price"], row["size"], row["side"]) for row in rows] == [
        (1, "61685.99", "0.25", "buy"),
        (2, "7", "0.25", "sell"),
        (3, "61685.99", "0.00000001", "buy"),
    ]
    assert all(row["ts_event"] == NOW - 1000 for row in rows)
    assert metrics.REGISTRY.get_sample_value("tapewick_ingest_trades_total", {"verdict": "accepted"}) == before + 3


@pytest.mark.parametrize("kind", ["contiguous", "unique"])
async def test_repeated_trades_are_duplicates_and_counted_once(door: Door, kind: str) -> None:
    ids = [1, 2, 3, 4] if kind == "contiguous" else ["a", "b", "c", "d"]
    first, second = (body(*map(trade, some), id_kind=kind) for some in (ids[:3], [ids[1], ids[3], ids[3]]))
    assert await door.verdicts(first) == ["accepted"] * 3
    assert await door.verdicts(second) == ["duplicate", "accepted", "duplicate"]
    assert len(await door.stored()) == 4


async def test_the_same_batch_from_many_at_once_is_stored_once(door: Door) -> None:
    batch = body(*(trade(n) for n in range(1, 51)))
    answers = await asyncio.gather(*(door.verdicts(batch) for _ in range(6)))
    told = [verdict for verdicts in answers for verdict in verdicts]
    assert (told.count("accepted"), told.count("duplicate")) == (50, 250)
    assert [row["trade_id"] for row in await door.stored()] == list(range(1, 51))


BAD: list[tuple[Any, str]] = [
    (trade(9, price=1.5), "price"),
    (trade(9, price="1e5"), "price"),
    (trade(9, price="-1"), "price"),
    (trade(9, price="NaN"), "price"),
    (trade(9, price="0"), "price"),
    (trade(9, price="1.123456789"), "price"),
    (trade(9, price="9" * 20), "price"),
    (trade(9, size=None), "size"),
    (trade(9, size="0.0"), "size"),
    (trade(9, price="9000000", size="9000000"), "size"),
    (trade(9, side="BUY"), "side"),
    (trade(9, ts_event=0), "ts_event"),
    (trade(9, ts_event=NOW + 60_000), "ts_event"),
    (trade(9, ts_event="soon"), "ts_event"),
    (trade("nine"), "trade_id"),
    (trade(-1), "trade_id"),
    (trade(2**62), "trade_id"),
    (trade("a\0b", instrument="hook:TEXT"), "trade_id"),
    (trade(9, instrument="binance:BTCUSDT"), "instrument"),
    (trade(9, instrument="hook:" + "A" * 40), "instrument"),
    (trade(9, instrument="hook:<script>"), "instrument"),
    (trade(9, instrument="hook:A\r\nB"), "instrument"),
    (trade(9, seq=1), "seq"),
    (7, ""),
    ([[[]]], ""),
]


@pytest.mark.parametrize(("item", "field"), BAD, ids=lambda value: str(value)[:60])
async def test_a_bad_item_names_its_field_and_the_rest_is_stored(door: Door, item: Any, field: str) -> None:
    answer = await door.post(body(trade(1), item, trade(2)))
    assert answer.status_code == 202, answer.text
    told = answer.json()["verdicts"]
    assert [one["verdict"] for one in told] == ["accepted", "rejected", "accepted"]
    assert told[1]["reason"] and (not field or told[1]["field"] == field), told[1]
    assert [row["trade_id"] for row in await door.stored()] == [1, 2]


async def test_unknown_symbols_are_left_out_where_they_may_not_be_made(tmp_path: Path) -> None:
    async with opened(tmp_path, auto_register=False) as door:
        assert await door.verdicts(body(trade(1))) == ["rejected"]


async def test_unknown_symbols_leave_the_rest_of_a_batch_alone(tmp_path: Path) -> None:
    async with opened(tmp_path) as door:
        await door.verdicts(body(trade(1)))
    async with opened(tmp_path, auto_register=False) as door:
        told = await door.verdicts(
            body(trade(2), trade(2, instrument="hook:NEW"), trade(3), trade(3, instrument="eth"))
        )
        assert told == ["accepted", "rejected", "accepted", "rejected"]
        assert [row["trade_id"] for row in await door.stored()] == [1, 2, 3]
        assert len((await door.rig.get("/v1/instruments"))["instruments"]) == 2


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "x-unknown"])
async def test_compressed_bodies_are_refused_unread(door: Door, coding: str) -> None:
    """None can be a bomb: nothing is ever unpacked, however it is called."""
    content = gzip.compress(msgspec.json.encode(body(trade(1))) + b" " * (64 << 20))
    answer = await door.post(content, content_encoding=coding)
    assert (answer.status_code, answer.json()["field"]) == (400, "content-encoding")
    assert (await door.post(content)).status_code == 400


async def test_a_batch_of_a_whole_mebibyte_is_stored(door: Door) -> None:
    content = msgspec.json.encode(body(*(trade(n) for n in range(5000))))
    assert len(content) < 1 << 20
    answer = await door.post(content + b" " * ((1 << 20) - len(content)))
    assert answer.status_code == 202 and answer.json()["accepted"] == 5000


async def test_no_more_instruments_are_made_than_allowed(tmp_path: Path) -> None:
    async with opened(tmp_path, max_instruments=2) as door:
        told = await door.verdicts(body(*(trade(1, instrument=f"hook:N{n}") for n in range(4))))
        assert told == ["accepted"] * 2 + ["rejected"] * 2


async def test_a_key_writes_its_own_instruments_only(door: Door) -> None:
    _, token = door.keys.create(["ingest"], instruments="hook:X*")
    told = await door.verdicts(body(trade(1), trade(2, instrument="hook:ABC")), token=token)
    assert told == ["accepted", "rejected"]


async def test_an_item_that_is_no_utf_8_leaves_the_others_alone(door: Door) -> None:
    content = msgspec.json.encode(body(trade(1), trade("x", instrument="hook:TEXT"), trade(2)))
    answer = await door.post(content.replace(b'"x"', b'"\xff"'))
    assert [one["verdict"] for one in answer.json()["verdicts"]] == ["accepted", "rejected", "accepted"]


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (b"", "body"),
        (b"{", "body"),
        (b"[]", "body"),
        (b'{"trades":[]}', "trades"),
        (b'{"trades":{}}', "trades"),
        (b'{"trades":[{}],"owner":1}', "owner"),
        (b'{"trades":[{}],"id_kind":"raw"}', "id_kind"),
        (b"[" * 100_000, "body"),
        (b"\xff\xfe", "body"),
        (msgspec.json.encode(body(*[trade(1)] * 5001)), "trades"),
        (msgspec.json.encode({"instrument": "hook:U", "trades": [trade(None)]}), "trade_id"),
    ],
)
async def test_a_request_that_is_wrong_as_a_whole_stores_nothing(door: Door, content: bytes, field: str) -> None:
    answer = await door.post(content)
    assert answer.status_code == 400, answer.text
    assert answer.json()["field"] == field
    assert (await door.rig.get("/v1/instruments"))["instruments"][0]["id"] == "sim:BTCUSDT"


async def test_bodies_are_bounded_before_they_are_read(door: Door) -> None:
    assert (await door.post(b"x" * (1 << 20))).status_code == 400
    assert (await door.post(b"x" * ((1 << 20) + 1))).status_code == 413
    bomb = await door.post(gzip.compress(bytes(10 << 20)), content_encoding="gzip")
    assert (bomb.status_code, bomb.json()["field"]) == (400, "content-encoding")


# -- whose trades they are ---------------------------------------------------------------------


async def test_the_names_of_two_senders_are_two_names(door: Door) -> None:
    """Neither swallows the other's trades; each one's own come once, also with the key that replaces its key."""
    texts = {"instrument": "hook:TEXT", "trades": [trade("a"), trade("b")]}
    other = door.keys.create(["ingest"])[1]
    assert await door.verdicts(texts) == ["accepted"] * 2
    assert await door.verdicts(texts, token=other) == ["accepted"] * 2
    assert await door.verdicts({**texts, "source": "second program"}, token=other) == ["accepted"] * 2
    successor = door.keys.create(["ingest"], source=other[:11])[1]
    for token in ("", other, successor):
        assert await door.verdicts(texts, token=token) == ["duplicate"] * 2
    assert len(await door.stored("hook:TEXT")) == 6


async def test_two_keys_of_one_source_are_one_sender(door: Door) -> None:
    first, second = (door.keys.create(["ingest"], source="desk")[1] for _ in range(2))
    texts = {"instrument": "hook:TEXT", "trades": [trade("a"), trade(None)]}
    told = await door.post(texts, first, idempotency_key="k")
    again = await door.post(texts, second, idempotency_key="k")
    assert told.json()["accepted"] == 2 and told.content == again.content
    assert again.headers["idempotent-replayed"] == "true"


async def test_secrets_with_names_part_those_who_sign(tmp_path: Path) -> None:
    """What two of them send under one webhook-id and one trade id is two messages, and two trades."""
    content = msgspec.json.encode({"instrument": "hook:TEXT", "trades": [trade("a")]})
    async with opened(tmp_path, secrets=(f"desk={OLD}", f"other={NEW}")) as door:
        now = str(door.rig.clock.now() // 10**9)
        for secret, verdict in ((OLD, "accepted"), (NEW, "accepted")):
            value = signature(secret_of(secret), "m1", now, content)
            signed = {"webhook_id": "m1", "webhook_timestamp": now, "webhook_signature": value}
            answer = await door.post(content, None, **signed)
            assert answer.json()["verdicts"][0]["verdict"] == verdict and "idempotent-replayed" not in answer.headers
        desk = door.keys.create(["ingest"], source="desk")[1]
        assert await door.verdicts(msgspec.json.decode(content), token=desk) == ["duplicate"]
        assert len(await door.stored("hook:TEXT")) == 2


async def test_names_of_keys_from_before_there_were_sources_stay_what_they_were(door: Door) -> None:
    """The name of a trade that such a key sent, as it has always been computed."""
    token = door.keys.create(["ingest"], source="")[1]
    texts = {"instrument": "hook:TEXT", "source": "s", "trades": [trade("a")]}
    assert await door.verdicts(texts, token=token) == ["accepted"]
    digest = blake2b(b"hook:TEXT\0s\0id\0a", digest_size=16).digest()
    words = [int.from_bytes(part, "big", signed=True) for part in (digest[:8], digest[8:])]
    assert (await door.rig.store.holds("hook:TEXT", np.array([words]))).all()


@pytest.mark.parametrize(
    "change", [{"price": "1"}, {"size": "9"}, {"side": "sell"}, {"ts_event": NOW - 7_200_000}, {"ts_event": NOW}]
)
async def test_another_trade_under_a_known_number_is_told_and_not_stored(door: Door, change: dict[str, Any]) -> None:
    other = door.keys.create(["ingest"])[1]
    assert await door.verdicts(body(trade(1), trade(2))) == ["accepted"] * 2
    answer = await door.post(body(trade(1), trade(2, **change), trade(3)), other)
    told = answer.json()
    assert [one["verdict"] for one in told["verdicts"]] == ["duplicate", "rejected", "accepted"]
    assert told["verdicts"][1]["field"] == "trade_id" and "another trade" in told["verdicts"][1]["reason"]
    assert (told["accepted"], told["duplicates"], told["rejected"]) == (1, 1, 1)
    assert [row["price"] for row in await door.stored()] == ["61685.99"] * 3
    # also within one request, where the first one stays
    assert await door.verdicts(body(trade(4), trade(4, **change), trade(4))) == ["accepted", "rejected", "duplicate"]


async def test_of_two_at_once_with_one_number_one_is_told(door: Door) -> None:
    """Through one gateway, and through two that both took the number for a new one."""
    prices = [str(price) for price in range(1, 9)]
    answers = await asyncio.gather(*(door.verdicts(body(trade(1, price=price))) for price in prices))
    assert sorted(verdict for verdicts in answers for verdict in verdicts) == ["accepted"] + ["rejected"] * 7


async def test_what_ids_an_instrument_has_is_held_to(door: Door) -> None:
    for kind, id, other in (("contiguous", 1, "unique"), ("unique", "a", "contiguous")):
        name = f"hook:{kind}"
        batch = {"instrument": name, "trades": [trade(id)]}
        assert await door.verdicts({**batch, "id_kind": kind}) == ["accepted"]
        assert await door.verdicts(batch) == ["duplicate"], "what is known need not be said"
        answer = await door.post({**batch, "id_kind": other, "trades": [trade(id), trade(1, instrument="hook:W")]})
        first, second = answer.json()["verdicts"]
        assert (first["verdict"], first["field"]) == ("rejected", "id_kind"), first
        assert f"are {kind}" in first["reason"] and "leave id_kind out" in first["reason"]
        assert second["verdict"] == ("accepted" if other == "contiguous" else "rejected"), "others go their own way"


async def test_no_instrument_is_made_for_items_that_do_not_fit_it(door: Door) -> None:
    """Else a first request without id_kind would make it unique for good, for trades of which it keeps none."""
    forgot = {"instrument": "hook:NEW", "trades": [trade(1), trade(2, price="no")]}
    told = (await door.post(forgot)).json()["verdicts"]
    assert [one["field"] for one in told] == ["trade_id", "trade_id"] and "id_kind" in told[0]["reason"]
    assert "hook:NEW" not in str(await door.rig.get("/v1/instruments"))
    assert await door.verdicts({**forgot, "id_kind": "contiguous"}) == ["accepted", "rejected"]


# -- who may write -----------------------------------------------------------------------------


async def test_without_a_key_nothing_is_read_or_stored(door: Door) -> None:
    for token in (None, "wrong", door.token + "x"):
        answer = await door.post(b"not even json", token=token)
        assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
    _, reader = door.keys.create(["read"])
    answer = await door.post(body(trade(1)), token=reader)
    assert answer.status_code == 403 and "ingest" in answer.json()["detail"]
    door.keys.revoke(door.token[:11])
    assert (await door.post(body(trade(1)))).status_code == 401


async def test_signed_webhooks_are_taken_once_and_in_time(tmp_path: Path) -> None:
    content = msgspec.json.encode(body(trade(1)))

    def signed(secret: str, id: str, at: int) -> dict[str, str]:
        value = signature(secret_of(secret), id, str(at), content)
        return {"webhook_id": id, "webhook_timestamp": str(at), "webhook_signature": value}

    async with opened(tmp_path, secrets=(OLD, NEW)) as door:
        now = door.rig.clock.now() // 10**9
        fresh = signed(OLD, "m1", now)
        first = await door.post(content, None, **fresh)
        again = await door.post(content, None, **fresh)
        assert (first.status_code, again.status_code) == (202, 202)
        assert first.content == again.content and again.headers["idempotent-replayed"] == "true"
        renamed = await door.post(content, None, **fresh, idempotency_key="another")
        assert renamed.headers["idempotent-replayed"] == "true", "a header that nobody signed makes no new message"
        assert (await door.post(content, None, **signed(NEW, "m2", now))).json()["duplicates"] == 1
        for bad in (
            {**fresh, "webhook_timestamp": str(now + 1)},
            {**fresh, "webhook_id": "m9"},
            signed(OLD, "m3", now - 301),
            {**fresh, "webhook_signature": ""},
        ):
            assert (await door.post(content, None, **bad)).status_code == 401
        assert (await door.post(content + b" ", None, **fresh)).status_code == 401
        assert (await door.post(content, door.token, **{**fresh, "webhook_signature": "v1,x"})).status_code == 401
        assert len(await door.stored()) == 1


# -- repetition and limits ---------------------------------------------------------------------


async def test_an_idempotency_key_gets_its_first_answer_again(door: Door) -> None:
    first = await door.post(body(trade(1)), idempotency_key="k")
    again = await door.post(body(trade(1)), idempotency_key="k")
    assert first.json()["accepted"] == 1 and first.content == again.content
    other = await door.post(body(trade(2)), idempotency_key="k")
    assert (other.status_code, other.json()["field"]) == (422, "idempotency-key")
    _, stranger = door.keys.create(["ingest"])
    assert (await door.post(body(trade(2)), stranger, idempotency_key="k")).status_code == 202


async def test_two_at_once_with_one_key_are_one_request(door: Door) -> None:
    nameless = {"instrument": "hook:U", "trades": [trade(None), trade(None)]}
    answers = await asyncio.gather(*(door.post(nameless, idempotency_key="k") for _ in range(4)))
    assert {answer.content for answer in answers} == {answers[0].content}
    assert answers[0].json()["accepted"] == 2 and len(await door.stored("hook:U")) == 2


async def test_a_refused_request_does_not_use_up_its_key(door: Door) -> None:
    assert (await door.post(b"{", idempotency_key="k")).status_code == 400
    assert await door.verdicts(body(trade(1)), idempotency_key="k") == ["accepted"]


async def test_429_is_the_senders_quota(tmp_path: Path) -> None:
    async with opened(tmp_path, trades_per_s=1, max_items=10) as door:
        assert await door.verdicts(body(*(trade(n) for n in range(10)))) == ["accepted"] * 10
        answer = await door.post(body(*(trade(n) for n in range(10, 20))))
        assert answer.status_code == 429 and 1 <= int(answer.headers["retry-after"]) <= 10
        other = door.keys.create(["ingest"])[1]
        assert await door.verdicts(body(trade(10)), token=other) == ["accepted"]
        assert len(await door.stored()) == 11


async def test_503_is_a_store_that_is_away(tmp_path: Path) -> None:
    cause: list[str] = []
    async with opened(tmp_path, readiness=lambda: cause[0] if cause else None) as door:
        cause.append("the disk is full")
        answer = await door.post(body(trade(1)), idempotency_key="k")
        assert answer.status_code == 503 and int(answer.headers["retry-after"]) > 0
        assert "the disk is full" in answer.json()["detail"]
        cause.clear()
        assert await door.verdicts(body(trade(1)), idempotency_key="k") == ["accepted"]


async def test_the_route_is_in_the_openapi_document(door: Door) -> None:
    document = await door.rig.get("/schema/openapi.json")
    operation = document["paths"][PATH]["post"]
    assert {"202", "400", "401", "403", "413", "422", "429", "503"} <= operation["responses"].keys()
    assert "trades" in str(operation["requestBody"])
