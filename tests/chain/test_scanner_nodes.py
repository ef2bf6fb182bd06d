"""The scanner on several nodes that contradict each other or stand still: the one that is right is listened to."""

from __future__ import annotations

from typing import Any

import pytest

from tapewick.errors import BadPayload, CursorAhead, ReorgTooDeep
from tapewick.net.backoff import Backoff
from tests.chain.fake_node import FakeChain, FakeNode, answered, created, serving
from tests.chain.following import at_head, busy_chain, complete, forked, how
from tests.chain.memory import MemoryScans
from tests.chain.scanning import scanning

pytestmark = pytest.mark.timeout(240)


@pytest.mark.parametrize("more", [10, 60], ids=["lower", "higher"])
async def test_a_node_of_another_fork_does_not_put_the_good_one_aside(more: int) -> None:
    """Whoever is distrusted rests for longer than this test may take."""
    chain, store = busy_chain(30, final=15), MemoryScans()
    bad = FakeNode(forked(chain, 20, more))
    async with serving(FakeNode(chain), bad) as urls:
        async with scanning(urls, store, **how(), pace=Backoff(base=3600, cap=3600, rng=lambda: 1.0)) as run:
            await at_head(run, store, chain)
            for round in range(5):
                if run.rpc.name == urls[0]:
                    run.rpc.next()
                before = len(bad.asked)
                await run.until(lambda n=before: len(bad.asked) > n)  # type: ignore[misc]
                for number in range(4):
                    chain.grow(created(100 + 10 * round + number))
                await at_head(run, store, chain)
    complete(store, chain)
    assert store.state is not None and store.state.status == "ACTIVE"
    assert not any(step.orphaned for step in store.steps)


async def test_a_node_of_another_fork_is_not_followed_while_the_good_one_is_away() -> None:
    chain, store = busy_chain(20, final=15), MemoryScans()
    good, bad = FakeNode(chain), FakeNode(forked(chain, 10, 30))
    async with serving(good, bad) as urls, scanning(urls, store, **how()) as run:
        await at_head(run, store, chain)
        good.fault = lambda method, params: answered(b"", "503 Service Unavailable")
        await run.until(lambda: "follows another chain" in str(run.scanner.trouble))
        before = len(bad.asked)
        await run.until(lambda: len(bad.asked) > before + 20)
        good.fault = None
        chain.grow(created(100))
        await at_head(run, store, chain)
    complete(store, chain)


@pytest.mark.parametrize(("more", "error"), [(30, ReorgTooDeep), (6, CursorAhead)])
async def test_what_all_nodes_say_is_believed(more: int, error: type[Exception]) -> None:
    chain, store = busy_chain(20, final=15), MemoryScans()
    nodes = [FakeNode(chain), FakeNode(chain)]
    async with serving(*nodes) as urls, scanning(urls, store, **how()) as run:
        await at_head(run, store, chain)
        for node in nodes:
            node.chain = forked(chain, 10, more)
        with pytest.raises(error):
            await run.task
    assert store.state is not None and store.state.status == "ERROR"
    complete(store, chain)


async def test_a_node_that_stands_still_is_left() -> None:
    chain, store = busy_chain(10, final=5), MemoryScans()
    still, other = FakeNode(chain), FakeNode(chain)
    async with serving(still, other) as urls, scanning(urls, store, **how()) as run:
        await at_head(run, store, chain)
        [still] = [node for node in (still, other) if node.url == run.rpc.name]
        for number in range(50):
            chain.grow(created(100 + number))
            still.lag += 1
        await at_head(run, store, chain)
    complete(store, chain)


async def test_logs_of_another_node_than_the_last_block_are_not_taken() -> None:
    """Another scanner, which uses the same nodes, distrusts the one in use while it answers."""
    chain, store = busy_chain(30, final=30), MemoryScans()
    good, late = FakeNode(chain), FakeNode(chain)
    late.lag = 15
    async with serving(good, late) as urls, scanning(urls, store, **how(span=40)) as run:
        left = [True]

        def fault(method: str, params: list[Any]) -> Any:
            if left and method == "eth_getBlockByNumber" and params[0] == hex(30):
                left.pop()
                run.rpc.distrust(BadPayload("another scanner"))

        good.fault = fault
        await at_head(run, store, chain)
        assert not left
    complete(store, chain)


async def test_a_balancer_whose_answers_differ_by_a_block_is_no_trouble() -> None:
    chain, store = FakeChain(), MemoryScans()
    for number in range(10):
        chain.grow(created(number + 1))
    chain.final = 5
    node, looks = FakeNode(chain), [0]
    async with serving(node) as urls, scanning(urls, store, **how()) as run:
        await at_head(run, store, chain)
        troubles: set[str | None] = set()

        def older(method: str, params: list[Any]) -> Any:
            troubles.add(run.scanner.trouble)
            if params[0] != "latest":
                return None
            looks[0] += 1
            return chain.blocks[-2] if looks[0] % 2 else None

        node.fault = older
        await run.until(lambda: looks[0] > 40)
    assert troubles == {None}


async def test_nodes_that_all_rest_for_long_are_told() -> None:
    chain, store = busy_chain(5, final=2), MemoryScans()
    node = FakeNode(chain)
    async with serving(node) as urls, scanning(urls, store, **how()) as run:
        await at_head(run, store, chain)
        node.fault = lambda method, params: answered(b"slow", "429 Too Many Requests", "Retry-After: 900")
        await run.until(lambda: "no node is asked for" in str(run.scanner.trouble))
        assert "HTTP 429" in str(run.scanner.trouble)


async def test_a_range_too_dense_for_the_node_becomes_smaller() -> None:
    """A node that lets so many calls through after each question for logs, and then refuses for their rate."""
    chain, store = FakeChain(), MemoryScans()
    for number in range(60):
        chain.grow(created(number + 1))
    chain.final = 60
    node, calls = FakeNode(chain), {"eth_call": 0, "eth_getBlockByHash": 0}
    spans: list[int] = []

    def fault(method: str, params: list[Any]) -> Any:
        if method == "eth_getLogs":
            calls.update(dict.fromkeys(calls, 0))
            spans.append(int(params[0]["toBlock"], 16) - int(params[0]["fromBlock"], 16))
        if method in calls:
            calls[method] += 1
            return ValueError(-32005, "daily rate exceeded") if calls[method] > limits[method] else None

    for limited in calls:
        store = MemoryScans()
        spans.clear()
        limits = {"eth_call": 10**9, "eth_getBlockByHash": 10**9} | {limited: 9}
        node.fault = fault
        async with serving(node) as urls, scanning(urls, store, **how(span=61)) as run:
            await at_head(run, store, chain)
        complete(store, chain)
        assert spans[0] == 60 and spans[1] <= 30


async def test_a_block_too_dense_for_the_node_is_read_bit_by_bit() -> None:
    chain, store = FakeChain(), MemoryScans()
    chain.grow(*(created(number + 1) for number in range(30)))
    node, calls = FakeNode(chain), [0]

    def fault(method: str, params: list[Any]) -> Any:
        calls[0] = 0 if method == "eth_getLogs" else calls[0] + (method == "eth_call")
        return ValueError(-32005, "daily rate exceeded") if method == "eth_call" and calls[0] > 9 else None

    node.fault = fault
    async with serving(node) as urls, scanning(urls, store, **how()) as run:
        await at_head(run, store, chain)
    complete(store, chain)
