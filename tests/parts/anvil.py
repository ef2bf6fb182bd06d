"""A real EVM node (anvil) of a test's own: a fresh chain with an id no other one has."""

from __future__ import annotations

import json
import os
import re
import secrets
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.browser import part
from tests.parts.child import Child
from tests.parts.told import told as tell

__all__ = ["Anvil", "RpcFailed", "anvil", "anvil_binary"]

MODULES = Path(__file__).resolve().parents[2] / "contracts" / "node_modules"
BINARY = MODULES / "@foundry-rs" / "anvil-linux-amd64" / "bin" / "anvil"


class RpcFailed(Exception):
    """The node answered with an error."""


def anvil_binary() -> str:
    """The node's binary; without it the test is skipped, or fails where CI is set."""
    there = str(BINARY) if os.access(BINARY, os.X_OK) else None
    return part("anvil", there, "python scripts/contracts.py fetches it (Linux on x86-64)")


class Anvil(Child):
    """``finality``: blocks behind the head that its ``finalized`` tag is, a multiple of two."""

    title = "anvil"

    def __init__(self, *, finality: int = 8, chain_id: int = 0) -> None:
        super().__init__()
        self._finality = finality
        self.chain_id = chain_id or 100_000 + secrets.randbelow(2**31)
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Always a new chain, on a port of its own."""
        (self.home / "log").write_bytes(b"")  # its port is read from it
        words = ["--host", "127.0.0.1", "--port", "0", "--chain-id", str(self.chain_id)]
        self.run([anvil_binary(), *words, "--slots-in-an-epoch", str(self._finality // 2)])
        found = re.compile(r"Listening on 127\.0\.0\.1:(\d+)\n")
        assert self.until(lambda: found.search(self.log()) is not None), self.log()
        self.port = int(found.findall(self.log())[-1])
        assert int(self.ask("eth_chainId"), 16) == self.chain_id, f"another node answers on {self.url}"
        version = str(self.ask("web3_clientVersion")).rpartition("/v")[2]
        tell(f"anvil {version}, pid {self.pid}, port {self.port}")

    def ask(self, method: str, *params: Any) -> Any:
        """The result of one call. Raises ``RpcFailed``."""
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
        request = urllib.request.Request(self.url, body, {"Content-Type": "application/json"})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as answer:
            said = json.load(answer)
        if "error" in said:
            raise RpcFailed(said["error"])
        return said["result"]

    @property
    def head(self) -> int:
        return int(self.ask("eth_blockNumber"), 16)

    def mine(self, blocks: int = 1) -> None:
        self.ask("anvil_mine", hex(blocks))


@pytest.fixture
def anvil() -> Iterator[Anvil]:
    yield from Anvil().running()  # type: ignore[misc]
