"""A chain of the cluster's own: a node, a contract of orders on it, and users who place, change and end them."""

from __future__ import annotations

import os
import random
import shutil
import threading
from typing import Any

__all__ = ["OrderChain", "missing"]

PACE = 1.0  # seconds between two acts
OPEN = 4  # orders there are before any of them changes


def missing() -> str:
    """Why there can be no node on this machine; empty where there can."""
    from tests.parts.anvil import BINARY

    there = os.access(BINARY, os.X_OK)
    return "" if there else "no EVM node is installed: python scripts/contracts.py fetches it (Linux on x86-64)"


class OrderChain:
    """Runs from ``start`` to ``remove``. The same ``seed`` gives the same acts."""

    def __init__(self, seed: int = 1) -> None:
        from tests.parts.anvil import Anvil

        self._node = Anvil()
        self._rng = random.Random(seed)
        self._contract: Any = None
        self._ended = threading.Event()
        self._trading = threading.Thread(target=self._trade, name="orders", daemon=True)

    def start(self) -> None:
        from tests.chain.orders_contract import OrdersContract

        self._node.start()
        self._contract = OrdersContract(self._node)
        self._trading.start()

    @property
    def env(self) -> dict[str, str]:
        """What a scanner is told."""
        return {
            "TAPEWICK_CHAIN__ID": str(self._node.chain_id),
            "TAPEWICK_CHAIN__RPC_URLS": self._node.url,
            "TAPEWICK_CHAIN__CONTRACTS": self._contract.address,
            "TAPEWICK_CHAIN__START_BLOCK": "0",
            "TAPEWICK_CHAIN__CONFIRMATIONS": "2",
            "TAPEWICK_CHAIN__POLL_S": "0.5",
        }

    def remove(self) -> None:
        """End the users, then the node."""
        self._ended.set()
        if self._trading.ident is not None:
            self._trading.join()
        self._node.end()
        shutil.rmtree(self._node.home, ignore_errors=True)

    def _trade(self) -> None:
        try:
            self._act_for_ever()
        except OSError as error:  # somebody killed the node
            print(f"  no more orders: the node does not answer ({error})", flush=True)

    def _act_for_ever(self) -> None:
        pending: list[int] = []
        count = 0
        while not self._ended.wait(PACE):
            what = self._rng.choice(("create", "modify", "execute", "cancel")) if len(pending) > OPEN else "create"
            if what == "create":
                count += 1
                self._contract.create(count)
                pending.append(count)
                continue
            one = self._rng.choice(pending)
            if what == "modify":
                self._contract.modify(one, self._rng.randrange(10**18), 5)
                continue
            pending.remove(one)
            if what == "execute":
                self._contract.execute(one, 7)
            else:
                self._contract.cancel(one)
