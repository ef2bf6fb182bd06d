"""What the contract is asked beside its logs: calls that fail in it, and nodes that do not answer them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chain.encoding import CONTRACT, TOKEN
from tests.chain.fake_node import FakeChain, FakeNode, created, serving
from tests.chain.following import at_head, complete, how
from tests.chain.memory import MemoryScans
from tests.chain.orders_contract import OrdersContract, _receipt, _sent
from tests.chain.scanning import scanning
from tests.parts.anvil import Anvil, anvil

__all__ = ["anvil"]
pytestmark = pytest.mark.timeout(240)


def three_orders() -> FakeChain:
    chain = FakeChain()
    for id in range(1, 4):
        chain.grow(created(id))
    return chain


def decimals(failure: Any) -> Any:
    """A fault that answers a question for the token's decimals so."""
    return lambda method, params: failure() if method == "eth_call" and params[0]["to"] == TOKEN else None


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (3, "execution reverted"),
        (-32000, "invalid opcode: INVALID"),
        (-32000, "out of gas"),
        (-32003, "out of gas: gas required exceeds: 50000000"),
        (-32000, "invalid jump destination"),
        (-32000, "stack underflow (0 <=> 2)"),
        (-32603, "EVM error InvalidFEOpcode"),
        (-32015, "VM execution error."),
        (-32000, "missing trie node 12 (path ) state 0x12 is not available"),
        (-32603, "internal error"),
        (-32601, "the method eth_call does not exist/is not available"),
        (-32602, "invalid argument 1"),
    ],
)
async def test_a_token_without_decimals_stops_nothing(code: int, message: str) -> None:
    chain, store = three_orders(), MemoryScans()
    nodes = [FakeNode(chain), FakeNode(chain)]
    for node in nodes:
        node.fault = decimals(lambda: ValueError(code, message))
    async with serving(*nodes) as urls, scanning(urls, store, **how()) as run:
        await at_head(run, store, chain)
    complete(store, chain)
    for order in store.rows.values():
        assert (order.decimals_known, order.decimals_in, order.amount_in) == (False, 18, "0.0000000000015")


@pytest.mark.parametrize("message", ["execution reverted", "invalid opcode: INVALID", "out of gas"])
async def test_a_contract_that_cannot_tell_of_an_order_stops_nothing(message: str) -> None:
    """At once: that a call fails in the contract is an answer."""
    chain, store = three_orders(), MemoryScans()
    nodes = [FakeNode(chain), FakeNode(chain)]
    for node in nodes:
        node.fault = lambda method, params: (
            ValueError(-32000, message) if method == "eth_call" and params[0]["to"] == CONTRACT else None
        )
    async with serving(*nodes) as urls, scanning(urls, store, **how()) as run:
        await at_head(run, store, chain)
        assert run.rpc.turn == 0
    complete(store, chain)
    assert {(order.amount_in, order.target_price, order.stub) for order in store.rows.values()} == {("1.5", "", False)}


@pytest.mark.parametrize("code", [-32600, -32601, -32602, -32603, -32700])
async def test_a_node_that_cannot_tell_is_not_the_last_word(code: int) -> None:
    chain, store = three_orders(), MemoryScans()
    bad, good = FakeNode(chain), FakeNode(chain)
    bad.fault = decimals(lambda: ValueError(code, "not here"))
    async with serving(bad, good) as urls, scanning(urls, store, **how()) as run:
        await at_head(run, store, chain)
    assert {(order.decimals_known, order.amount_in) for order in store.rows.values()} == {(True, "1.5")}


async def test_a_node_that_is_asked_too_often_is_waited_for() -> None:
    chain, store = three_orders(), MemoryScans()
    node, refusals = FakeNode(chain), [0]

    def refused() -> Any:
        refusals[0] += 1
        return ValueError(-32000, "15/second request limit reached") if refusals[0] <= 30 else None

    node.fault = decimals(refused)
    async with serving(node) as urls, scanning(urls, store, **how()) as run:
        await at_head(run, store, chain)
    assert refusals[0] > 30 and all(order.decimals_known for order in store.rows.values())


@pytest.mark.parametrize(
    "code",
    ["60fe60005360016000f3", "635b6000566000526004601cf3", "63600156006000526004601cf3"],
    ids=["an invalid instruction", "no end", "a jump to nowhere"],
)
async def test_hostile_tokens_on_a_real_node(anvil: Anvil, code: str) -> None:
    contract, store = OrdersContract(anvil), MemoryScans()
    hostile = _receipt(anvil, _sent(anvil, contract.user, "0x" + code))["contractAddress"].lower()
    contract.token = hostile
    contract.create(1)
    asked: dict[str, Any] = {"chain_id": anvil.chain_id, "contract": contract.address, "confirmations": 2}
    async with scanning([anvil.url], store, **asked) as run:
        await run.until(lambda: store.state is not None and store.state.cursor == anvil.head)
        contract.create(2)
        await run.until(lambda: "2" in store.rows)
    assert {(row.token_out, row.decimals_out, row.decimals_known) for row in store.rows.values()} == {
        (hostile, 18, False)
    }
