"""The scanner against nodes that fail, lag, forget, and contradict each other: no block is passed over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tapewick.chain.bloom import bloom_of
from tests.chain.encoding import CONTRACT
from tests.chain.fake_node import NULL, FakeChain, FakeNode, answered, created, serving
from tests.chain.following import at_head, busy_chain, complete, how
from tests.chain.memory import MemoryScans
from tests.chain.scanning import scanning

pytestmark = pytest.mark.timeout(240)


@pytest.mark.parametrize("final", [0, 20, 59, None])
async def test_every_block_is_taken_in_once(final: int | None) -> None:
    chain, store = busy_chain(60, final=final), MemoryScans()
    async with serving(FakeNode(chain)) as urls, scanning(urls, store, **how(span=7, depth=30)) as run:
        await at_head(run, store, chain)
    complete(store, chain)
    assert store.state is not None and store.state.finalized == (30 if final is None else final)
    assert not any(one.kind == "order.reverted" for one in store.log)


Failure = Callable[[str, list[Any], int], Any]


def _error(code: int, message: str) -> Failure:
    return lambda method, params, n: ValueError(code, message)


def _range_over(blocks: int, message: str) -> Failure:
    def refused(method: str, params: list[Any], n: int) -> Any:
        if method != "eth_getLogs" or "fromBlock" not in params[0]:
            return None
        width = int(params[0]["toBlock"], 16) - int(params[0]["fromBlock"], 16) + 1
        return ValueError(-32602, message) if width > blocks else None

    return refused


def _now_and_then(failure: Failure, methods: str = "") -> Failure:
    return lambda method, params, n: failure(method, params, n) if method.startswith(methods) and n % 3 == 0 else None


FAILURES: dict[str, Failure] = {
    "internal error": _now_and_then(_error(-32603, "internal error")),
    "rate limit": _now_and_then(_error(-32005, "daily request count exceeded, request rate limited")),
    "HTTP 429": _now_and_then(lambda *_: answered(b"slow down", "429 Too Many Requests", "Retry-After: 0")),
    "HTTP 502": _now_and_then(lambda *_: answered(b"<html>", "502 Bad Gateway")),
    "no JSON": _now_and_then(lambda *_: answered(b"{")),
    "another shape": _now_and_then(lambda *_: answered(b'{"jsonrpc":"2.0","id":1,"result":7}')),
    "logs fail": _now_and_then(_error(-32000, "query timeout"), "eth_getLogs"),
    "unknown block": _now_and_then(_error(-32000, "header not found"), "eth_getLogs"),
    "range hint": _range_over(4, "Max range: 4"),
    "range without a number": _range_over(1, "block range is too wide"),
    "range in hex": _range_over(3, "query returned more than 10000 results. Try this block range [0x1, 0x3]"),
    "null blocks": _now_and_then(lambda *_: NULL, "eth_getBlock"),
}


@pytest.mark.parametrize("name", FAILURES)
async def test_no_failure_passes_a_block_over(name: str) -> None:
    chain, store = busy_chain(20, final=12), MemoryScans()
    node = FakeNode(chain)
    counts: dict[str, int] = {}

    def fault(method: str, params: list[Any]) -> Any:
        counts[method] = counts.get(method, 0) + 1
        return FAILURES[name](method, params, counts[method])

    node.fault = fault
    async with serving(node) as urls, scanning(urls, store, **how(span=5)) as run:
        await at_head(run, store, chain)
    complete(store, chain)
    assert not any(step.orphaned for step in store.steps)


async def test_empty_logs_are_not_believed_against_the_blocks_own_filter() -> None:
    chain, store = busy_chain(3, final=0), MemoryScans()
    node = FakeNode(chain)
    hidden = [True]

    def fault(method: str, params: list[Any]) -> Any:
        return [] if hidden[0] and method == "eth_getLogs" and "blockHash" in params[0] else None

    node.fault = fault
    async with serving(node) as urls, scanning(urls, store, **how()) as run:
        await run.until(lambda: run.scanner.trouble is not None)
        assert store.state is not None and store.state.cursor == 0
        assert "fewer logs of block 3 than its header tells" in str(run.scanner.trouble)
        hidden[0] = False
        await at_head(run, store, chain)
        await run.until(lambda: run.scanner.trouble is None)
    complete(store, chain)


@pytest.mark.parametrize("system", [False, True], ids=["", "and lacks what the chain itself logs"])
async def test_a_filter_that_only_seems_to_match_is_no_failure(system: bool) -> None:
    chain, store = FakeChain(), MemoryScans()
    chain.grow(created(1))
    topics, data = created(2)
    other = chain.grow(noise=1)  # the same topics, another contract
    chain.logs[other["hash"]][0]["topics"] = [topics[0], "0x" + CONTRACT[2:].rjust(64, "0")]
    log = chain.logs[other["hash"]][0]
    extra = {**log, "address": "0x" + "dd" * 20, "topics": [CONTRACT], "logIndex": "0x1"}  # 20 bytes: same bits
    chain.logs[other["hash"]].append(extra)
    items = [item for one in (log, extra) for item in (one["address"], *one["topics"])]
    other["logsBloom"] = f"0x{bloom_of(items):0512x}"
    if system:
        own = {**log, "address": "0x" + "00" * 18 + "1001", "topics": ["0x" + "5a" * 32], "logIndex": "0x2"}
        chain.logs[other["hash"]].append(own)
    node = FakeNode(chain)
    async with serving(node) as urls, scanning(urls, store, **how()) as run:
        await at_head(run, store, chain)
    complete(store, chain)
    assert sum(method == "eth_getLogs" and "address" not in params[0] for method, params in node.asked) >= 1


async def test_a_node_that_lags_behind_is_no_reorganisation() -> None:
    chain, store = busy_chain(30, final=10), MemoryScans()
    good, late = FakeNode(chain), FakeNode(chain)
    late.lag = 5
    async with serving(good, late) as urls, scanning(urls, store, **how()) as run:
        await at_head(run, store, chain)
        good.fault = lambda method, params: answered(b"", "503 Service Unavailable")
        await run.until(lambda: "waiting for it" in str(run.scanner.trouble))
        for number in range(31, 34):
            chain.grow(created(number))
        good.fault = None
        await at_head(run, store, chain)
        late.lag = 0
        good.fault = lambda method, params: answered(b"", "503 Service Unavailable")
        chain.grow(created(50))
        await at_head(run, store, chain)
    complete(store, chain)
    assert not any(step.orphaned for step in store.steps)


async def test_logs_of_a_node_that_does_not_have_the_range_are_not_taken() -> None:
    chain, store = busy_chain(30, final=30), MemoryScans()
    good, late = FakeNode(chain), FakeNode(chain)
    late.lag = 15
    turns = [0]

    def flaky(method: str, params: list[Any]) -> Any:
        turns[0] += 1
        return answered(b"", "503 Service Unavailable") if method == "eth_getLogs" and turns[0] % 2 else None

    good.fault = flaky
    async with serving(good, late) as urls, scanning(urls, store, **how(span=30)) as run:
        await at_head(run, store, chain)
    complete(store, chain)


async def test_a_node_of_another_chain_is_not_used() -> None:
    chain, store = busy_chain(10, final=5), MemoryScans()
    foreign = FakeNode(busy_chain(50, final=40))
    foreign.chain_id = 1
    async with serving(foreign, FakeNode(chain)) as urls, scanning(urls, store, **how()) as run:
        await at_head(run, store, chain)
    complete(store, chain)
    assert {method for method, _ in foreign.asked} == {"eth_chainId"}


async def test_removed_logs_are_not_taken_in() -> None:
    chain, store = FakeChain(), MemoryScans()
    block = chain.grow(created(1), created(2))
    gone = {**chain.logs[block["hash"]][1], "logIndex": "0x5", "transactionHash": "0x" + "ff" * 32, "removed": True}
    node = FakeNode(chain)

    def fault(method: str, params: list[Any]) -> Any:
        logs = node.truth(method, params) if method == "eth_getLogs" else None
        return [gone, *logs, *logs] if logs else None  # and all others twice

    node.fault = fault
    async with serving(node) as urls, scanning(urls, store, **how()) as run:
        await at_head(run, store, chain)
    complete(store, chain)


async def test_a_transaction_that_moves_to_another_block_is_one_event() -> None:
    chain, store = busy_chain(10, final=5), MemoryScans()
    tx = "0x" + "77" * 32
    async with serving(FakeNode(chain)) as urls, scanning(urls, store, **how()) as run:
        chain.grow(created(100), tx=tx)
        await at_head(run, store, chain)
        chain.cut(1)
        chain.grow()
        chain.grow(created(100), tx=tx)
        await at_head(run, store, chain)
    complete(store, chain)
    assert [event.block for event in store.canonical if event.tx_hash == tx] == [12]
    assert store.rows["100"].block == 12


@pytest.mark.parametrize("depth", [1, 3, 9])
@pytest.mark.parametrize("later", [0, 60], ids=["still at the tip", "final since"])
async def test_blocks_replaced_while_the_scanner_was_away(depth: int, later: int) -> None:
    chain, store = busy_chain(20, final=10), MemoryScans()
    async with serving(FakeNode(chain)) as urls:
        async with scanning(urls, store, **how()) as run:
            await at_head(run, store, chain)
        chain.cut(depth)
        for number in range(depth + 2):
            chain.grow(created(200 + number))
        for _ in range(later):
            chain.grow()
        chain.final = 10 + later
        async with scanning(urls, store, **how()) as run:
            await at_head(run, store, chain)
    complete(store, chain)


async def test_an_event_becomes_confirmed_and_final_once_each() -> None:
    chain, store = FakeChain(), MemoryScans()
    chain.grow(created(1))
    async with serving(FakeNode(chain)) as urls, scanning(urls, store, **how()) as run:
        await at_head(run, store, chain)
        for _ in range(6):
            chain.grow()
            await at_head(run, store, chain)
        chain.final = 4
        await run.until(lambda: store.state is not None and store.state.finalized == 4)
        chain.grow()
        await at_head(run, store, chain)
    told = [(one.kind, one.finality, one.confirmations) for one in store.log]
    assert told == [
        ("order.created", "pending", 0),
        ("order.finality", "confirmed", 2),
        ("order.finality", "finalized", 6),
    ]
    assert [one.seq for one in run.told] == [1, 2, 3]


async def test_a_second_look_adds_what_the_first_one_missed() -> None:
    chain, store = FakeChain(), MemoryScans()
    chain.grow(created(1), created(2))
    node = FakeNode(chain)
    calls = [0]

    def fault(method: str, params: list[Any]) -> Any:
        if method != "eth_getLogs" or "blockHash" not in params[0]:
            return None
        calls[0] += 1
        return node.truth(method, params)[:1] if calls[0] == 1 else None

    node.fault = fault
    async with serving(node) as urls, scanning(urls, store, **how()) as run:
        await at_head(run, store, chain)
        assert set(store.rows) == {"1"}
        chain.grow()
        chain.grow()
        await at_head(run, store, chain)
    complete(store, chain)


async def test_recovery_reads_what_is_not_final_again() -> None:
    chain, store = busy_chain(20, final=10), MemoryScans()
    async with serving(FakeNode(chain)) as urls:
        async with scanning(urls, store, **how()) as run:
            await at_head(run, store, chain)
        lost = store.canonical[-1]
        store.forget(lost)
        store.order("RECOVERY")
        async with scanning(urls, store, **how()) as run:
            await run.until(lambda: store.state is not None and store.state.status == "ACTIVE")
    complete(store, chain)


async def test_a_start_that_is_yet_to_come_is_waited_for() -> None:
    chain, store = busy_chain(6, final=2), MemoryScans()
    async with serving(FakeNode(chain)) as urls, scanning(urls, store, **how(start=12)) as run:
        await run.until(lambda: "waiting" in str(run.scanner.trouble))
        while chain.head < 13:
            chain.grow(created(chain.head))
        await at_head(run, store, chain)
    assert {event.block for event in store.canonical} == {12, 13}
