"""JSON-RPC over real HTTP: which errors end a call, which go to the next address, and what is never shown."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tapewick import metrics
from tapewick.clock import RealClock
from tapewick.errors import BadPayload, ConfigError, Disconnected, NodeRefused, SourceError, TooWide, VenueRefused
from tapewick.net._node import Node
from tapewick.net.backoff import Backoff
from tapewick.net.jsonrpc import JsonRpc
from tests.chain.fake_node import CHAIN, NULL, FakeChain, FakeNode, answered, serving

pytestmark = pytest.mark.timeout(240)
KEY = "0123456789abcdef0123456789abcdef"


def failing(*answers: Any) -> FakeNode:
    """A node that answers so, one after the other, to what is not about its chain; then the truth."""
    node, left = FakeNode(FakeChain()), list(answers)
    node.fault = lambda method, params: left.pop(0) if left and method != "eth_chainId" else None
    return node


@asynccontextmanager
async def calling(urls: Sequence[str], **how: Any) -> AsyncIterator[JsonRpc]:
    pace = Backoff(base=0.01, cap=0.05)
    async with JsonRpc(urls, chain_id=CHAIN, clock=RealClock(), backoff=pace, **how) as rpc:
        yield rpc


async def head(rpc: JsonRpc, **how: Any) -> Any:
    return await rpc.call("eth_getBlockByNumber", ["latest", False], dict, **how)


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        (ValueError(-32603, "oh"), NodeRefused, "refused eth_getBlockByNumber: 'oh'"),
        (ValueError(-32601, "no such method"), NodeRefused, "no such method"),
        (ValueError(-32600, "invalid request"), NodeRefused, "invalid request"),
        (ValueError(-32700, "parse error"), NodeRefused, "parse error"),
        (answered(b"later", "429 Too Many Requests", "Retry-After: 0"), VenueRefused, "HTTP 429"),
        (answered(b"<html>", "502 Bad Gateway"), VenueRefused, "HTTP 502"),
        (answered(b"no"), BadPayload, "no JSON-RPC"),
        (answered(b'{"jsonrpc":"2.0","id":77,"result":{}}'), BadPayload, "no JSON-RPC"),
        (["x"], BadPayload, "unknown shape"),
        (NULL, BadPayload, "unknown shape"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n{", Disconnected, "did not answer"),
        (b"garbage\r\n\r\n", Disconnected, "cannot be reached"),
    ],
)
async def test_what_may_pass_is_asked_of_the_next_address(answer: Any, error: type[SourceError], said: str) -> None:
    patience = 2.0 if said == "did not answer" else 60.0
    async with serving(failing(answer, answer), FakeNode(FakeChain())) as urls:
        async with calling(urls, timeout=patience) as rpc:
            assert (await head(rpc))["number"] == "0x0"
            assert rpc.turn >= 1
        async with calling(urls[:1], timeout=patience) as rpc:
            with pytest.raises(error, match=said):
                await head(rpc, rounds=1)
            assert (await head(rpc))["number"] == "0x0"


@pytest.mark.parametrize(("code", "text"), [(-32602, "bad"), (3, "execution reverted")])
async def test_what_would_be_the_same_again_is_final(code: int, text: str) -> None:
    first, second = failing(ValueError(code, text)), FakeNode(FakeChain())
    async with serving(first, second) as urls, calling(urls) as rpc:
        with pytest.raises(NodeRefused, match=text) as raised:
            await head(rpc)
    assert raised.value.final and raised.value.code == code and not second.asked


@pytest.mark.parametrize(
    ("said", "span"),
    [
        ("query returned more than 10000 results", None),
        ("query returned more than 10000 results. Try with this block range [0x64, 0x77].", 20),
        ("You can make eth_getLogs requests with up to a 2K block range", 2000),
        ("this block range should work: [0x1, 0x64]", 100),
        ("Max range: 800", 800),
        ("eth_getLogs is limited to a 10,000 range", 10_000),
        ("ranges over 10000 blocks are not supported on free tier", 10_000),
        ("up to a 5 block range", 5),
        ("block range is too wide", None),
        ("exceed maximum block range: 5000", 5000),
    ],
)
async def test_a_node_that_wants_less_says_how_much(said: str, span: int | None) -> None:
    async with serving(failing(ValueError(-32005, said))) as urls, calling(urls) as rpc:
        with pytest.raises(TooWide) as raised:
            await rpc.call("eth_getLogs", [{"fromBlock": "0x0", "toBlock": "0xfff"}], list)
    assert raised.value.span == span


@pytest.mark.parametrize(
    ("said", "halted", "rate"),
    [
        (ValueError(3, "execution reverted: no such order"), True, False),
        (ValueError(-32000, "execution reverted"), True, False),
        (ValueError(-32000, "opcode 0xfe not defined"), True, False),
        (ValueError(-32603, "EVM error OutOfGas"), True, False),
        (ValueError(-32000, "stack limit reached 1024 (1023)"), True, False),
        (ValueError(-32603, "internal error"), False, False),
        (ValueError(-32000, "missing trie node 1f"), False, False),
        (ValueError(-32005, "limit exceeded"), False, True),
        (ValueError(-32007, "15/second request limit reached"), False, True),
        (ValueError(429, "compute units per second capacity exceeded"), False, True),
    ],
)
async def test_a_call_that_fails_in_its_contract_is_told_from_a_node_that_fails(
    said: ValueError, halted: bool, rate: bool
) -> None:
    async with serving(failing(said)) as urls, calling(urls) as rpc:
        with pytest.raises(NodeRefused) as raised:
            await rpc.call("eth_call", [], str, rounds=1)
    assert (raised.value.halted, raised.value.final, raised.value.rate) == (halted, halted, rate)


class Steered:
    """A clock that a test sets; whoever sleeps does so until the test ends it."""

    def __init__(self) -> None:
        self.time, self.slept, self.asleep, self.woken = 10**18, [0.0], asyncio.Event(), asyncio.Event()

    def now(self) -> int:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.asleep.set()
        await self.woken.wait()


async def test_that_all_addresses_rest_is_told_until_one_answers() -> None:
    clock = Steered()
    async with serving(FakeNode(FakeChain())) as urls, JsonRpc(urls, chain_id=CHAIN, clock=clock) as rpc:
        rpc.distrust(VenueRefused("not now", status=429, retry_after=2.0))
        assert rpc.trouble is None
        rpc.distrust(VenueRefused("not for long", status=429, retry_after=60.0))
        asked = asyncio.create_task(head(rpc))
        await clock.asleep.wait()
        assert rpc.trouble is not None and "not for long" in rpc.trouble
        clock.time += 70 * 10**9
        clock.woken.set()
        assert (await asked)["number"] == "0x0" and rpc.trouble is None


async def test_a_clock_that_is_set_back_prolongs_no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(FakeNode(FakeChain())) as urls:
        async with JsonRpc(urls, chain_id=CHAIN, backoff=Backoff(base=0.01, cap=0.01)) as rpc:
            rpc.distrust(Disconnected("away"))
            now = time.time_ns()
            monkeypatch.setattr(time, "time_ns", lambda: now - 3600 * 10**9)
            assert (await head(rpc))["number"] == "0x0"


async def test_the_only_address_is_always_the_same() -> None:
    async with serving(failing(ValueError(-32603, "oh"))) as urls, calling(urls) as rpc:
        assert (await head(rpc))["number"] == "0x0"
        assert rpc.turn == 0


async def test_an_answer_is_bounded_in_size() -> None:
    async with serving(failing(["x" * 100_000])) as urls, calling(urls, max_bytes=50_000) as rpc:
        with pytest.raises(TooWide, match="more than 50000 bytes"):
            await head(rpc)


async def test_an_answer_that_trickles_is_bounded_in_time() -> None:
    left = asyncio.Event()

    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            while True:
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.05)
        except ConnectionError:
            writer.close()
            left.set()

    server = await asyncio.start_server(trickle, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        node = Node(url, url, timeout=0.5, max_bytes=1 << 20)
        with pytest.raises(Disconnected, match=r"did not answer eth_chainId within 0\.5 s"):
            await node.ask("eth_chainId", [], str, 1)
        await node.aclose()
        await left.wait()


async def test_keys_in_addresses_are_shown_nowhere(capsys: pytest.CaptureFixture[str]) -> None:
    secret = failing(ValueError(-32603, f"no credit left for {KEY}"), answered(KEY.encode(), "403 Forbidden"))
    async with serving(secret) as [url]:
        async with calling([f"{url}/v2/{KEY}", f"http://user:{KEY}@127.0.0.1:1/?apikey={KEY}"]) as rpc:
            with pytest.raises(SourceError) as raised:
                for _ in range(4):
                    await rpc.call("eth_call", [], str, rounds=1)
            shown = f"{raised.value!r} {raised.value.__cause__} {rpc.name} {capsys.readouterr()}"
    assert KEY not in shown and KEY not in metrics.render().decode()
    assert 'host="http://127.0.0.1:1"' in metrics.render().decode()


async def test_an_address_of_another_chain_is_named() -> None:
    node = FakeNode(FakeChain())
    node.chain_id = 5
    async with serving(node) as urls, calling(urls) as rpc:
        with pytest.raises(BadPayload, match=f"serves chain 5, not {CHAIN}"):
            await head(rpc)


def test_a_chain_needs_a_node() -> None:
    with pytest.raises(ConfigError, match="name at least one URL"):
        JsonRpc([], chain_id=1, clock=RealClock())
