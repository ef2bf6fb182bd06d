"""Keccak-256 and block filters against a real node's own."""

from __future__ import annotations

import random

from tapewick.chain.bloom import bloom_of, may_hold
from tapewick.chain.decoding import EVENTS
from tapewick.chain.keccak import RATE, keccak256
from tests.chain.orders_contract import OrdersContract
from tests.parts.anvil import Anvil, anvil

__all__ = ["anvil"]


def test_hashes_are_those_of_a_node(anvil: Anvil) -> None:
    rng = random.Random(5)
    for size in (0, 1, 20, RATE - 1, RATE, RATE + 1, 2 * RATE, *rng.choices(range(1000), k=10)):
        data = rng.randbytes(size)
        assert anvil.ask("web3_sha3", "0x" + data.hex()) == "0x" + keccak256(data).hex()


def test_filters_are_those_of_a_nodes_blocks(anvil: Anvil) -> None:
    contract = OrdersContract(anvil)
    tx = contract.create(1, old=True)
    block = anvil.ask("eth_getBlockByNumber", hex(contract.block_of(tx)[0]), False)
    [log] = anvil.ask("eth_getLogs", {"blockHash": block["hash"]})
    assert bloom_of([log["address"], *log["topics"]]) == int(block["logsBloom"], 16)
    assert may_hold(block["logsBloom"], contract.address, EVENTS)
    assert not may_hold(block["logsBloom"], contract.token, EVENTS)
    assert not may_hold(block["logsBloom"], contract.address, ["0x" + "ab" * 32])
