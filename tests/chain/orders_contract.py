"""Our contracts on a real node: what a test makes users do with orders."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from tests.parts.anvil import Anvil

__all__ = ["NATIVE", "OrdersContract", "built", "deployed_token"]

BUILD = Path(__file__).resolve().parents[2] / "contracts" / "build"
NATIVE = "0x" + "00" * 20


def built(name: str) -> dict[str, Any]:
    """A committed build: ``abi``, ``selectors`` and ``bytecode``."""
    made: dict[str, Any] = json.loads((BUILD / f"{name}.json").read_text())
    return made


def word(value: int | bool | str) -> str:
    """One word of call data."""
    return f"{int(value, 16) if isinstance(value, str) else int(value):064x}"


def _sent(node: Anvil, user: str, data: str, to: str | None = None) -> str:
    """The hash of a transaction once it is in a block: the node mines after it has answered."""
    transaction = {"from": user, "data": data, "gas": "0x2dc6c0", "gasPrice": "0x77359400"} | ({"to": to} if to else {})
    tx = str(node.ask("eth_sendTransaction", transaction))
    deadline = time.monotonic() + 60
    while node.ask("eth_getTransactionReceipt", tx) is None:
        assert time.monotonic() < deadline, f"transaction {tx} is not mined"
        time.sleep(0.002)
    return tx


def _receipt(node: Anvil, tx: str) -> dict[str, Any]:
    receipt: dict[str, Any] = node.ask("eth_getTransactionReceipt", tx)
    assert receipt["status"] == "0x1", receipt
    return receipt


def deployed_token(node: Anvil, decimals: int) -> str:
    """The address of a token with so many decimals."""
    [user, *_] = node.ask("eth_accounts")
    tx = _sent(node, user, built("Token")["bytecode"] + word(decimals))
    return str(_receipt(node, tx)["contractAddress"]).lower()


class OrdersContract:
    """One deployed ``Orders``. Each act is one transaction, mined at once unless the node was told otherwise."""

    def __init__(self, node: Anvil) -> None:
        self.node = node
        self.user, self.executor, *_ = (account.lower() for account in node.ask("eth_accounts"))
        made = built("Orders")
        self._selectors = {signature.partition("(")[0]: code for signature, code in made["selectors"].items()}
        self.address = str(_receipt(node, _sent(node, self.user, made["bytecode"]))["contractAddress"]).lower()
        self.token = deployed_token(node, 6)

    def create(
        self, id: int, *, old: bool = False, amount: int = 5 * 10**16, target: int = 8944299 * 10**11, kind: int = 0
    ) -> str:
        """Sell native coin for a token of 6 decimals, at least 1.5 of it."""
        words = (old, id, NATIVE, self.token, amount, target, 1_500_000, kind)
        return self._act("create", self.user, *words)

    def modify(self, id: int, target: int, least: int, *, old: bool = False) -> str:
        return self._act("modify", self.user, old, id, target, least)

    def execute(self, id: int, amount: int, *, old: bool = False) -> str:
        return self._act("execute", self.executor, old, id, amount)

    def cancel(self, id: int, *, old: bool = False) -> str:
        return self._act("cancel", self.user, old, id)

    def misfit(self, topic: str, data: str) -> str:
        size = len(data) // 2
        return self._act("misfit", self.user, topic, 64, size, tail=data.ljust(-(-size // 32) * 64, "0"))

    def block_of(self, tx: str) -> tuple[int, int]:
        """Height of a transaction's block, and its time in ns."""
        block = self.node.ask("eth_getBlockByHash", _receipt(self.node, tx)["blockHash"], False)
        return int(block["number"], 16), int(block["timestamp"], 16) * 10**9

    def _act(self, name: str, user: str, *words: int | bool | str, tail: str = "") -> str:
        data = "0x" + self._selectors[name] + "".join(map(word, words)) + tail
        return _sent(self.node, user, data, self.address)
