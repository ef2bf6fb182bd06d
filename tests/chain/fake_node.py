"""A chain in memory and nodes that serve it by real HTTP, as well or as badly as a test says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from tapewick.chain.bloom import bloom_of
from tests.chain.encoding import CONTRACT, CREATED, EXECUTED, TOKEN, USER, encoded, word

__all__ = ["CHAIN", "FakeChain", "FakeNode", "NULL", "answered", "created", "executed", "serving"]

CHAIN = 4242
Told = tuple[tuple[str, ...], str]
NULL = object()
"""What a fault returns for the result null."""
Fault = Callable[[str, list[Any]], Any]


def created(id: int) -> Told:
    """Topics and data of a new order."""
    values = {"user": USER, "token_in": TOKEN, "token_out": "0x" + "00" * 20, "amount_in": "1500000"}
    return encoded(CREATED, str(id), values)


def executed(id: int) -> Told:
    return encoded(EXECUTED, str(id), {"executor": USER, "amount_out": "1000000000000000000"})


class FakeChain:
    """Blocks by height; a block knows its logs. ``final``: the height of the ``finalized`` tag, None: no such tag."""

    def __init__(self) -> None:
        self.blocks: list[dict[str, Any]] = []
        self.known: dict[str, dict[str, Any]] = {}
        self.logs: dict[str, list[dict[str, Any]]] = {}
        self.final: int | None = 0
        self._fork = 0
        self._transactions = 0
        self.grow()

    @property
    def head(self) -> int:
        return len(self.blocks) - 1

    def grow(self, *told: Told, tx: str = "", noise: int = 0) -> dict[str, Any]:
        """One more block with these logs, each of an own transaction, after ``noise`` logs of another contract."""
        number = len(self.blocks)
        self._fork += 1
        hash = f"0x{number:032x}{self._fork:032x}"
        everything = [(CONTRACT, topics, data) for topics, data in told]
        everything = [("0x" + "ee" * 20, topics, data) for topics, data in [created(9)] * noise] + everything
        logs = [self._log(one, number, hash, index, tx) for index, one in enumerate(everything)]
        block = {
            "number": hex(number),
            "hash": hash,
            "parentHash": self.blocks[-1]["hash"] if self.blocks else "0x" + "00" * 32,
            "timestamp": hex(1_700_000_000 + 12 * number),
            "logsBloom": f"0x{bloom_of(item for log in logs for item in (log['address'], *log['topics'])):0512x}",
        }
        self.blocks.append(block)
        self.known[hash], self.logs[hash] = block, logs
        return block

    def cut(self, depth: int) -> None:
        """The last blocks are canonical no more."""
        del self.blocks[-depth:]

    def _log(
        self, one: tuple[str, tuple[str, ...], str], number: int, hash: str, index: int, tx: str
    ) -> dict[str, Any]:
        self._transactions += 1
        return {
            "address": one[0],
            "topics": list(one[1]),
            "data": one[2],
            "blockNumber": hex(number),
            "blockHash": hash,
            "transactionHash": tx or f"0x{self._transactions:064x}",
            "logIndex": hex(index),
            "removed": False,
        }


class FakeNode:
    """``fault`` is asked first: what it returns is the answer (bytes: the whole HTTP answer; an exception: the error
    of JSON-RPC), None: the truth. ``lag``: blocks this node has not got yet."""

    def __init__(self, chain: FakeChain) -> None:
        self.chain = chain
        self.lag = 0
        self.fault: Fault | None = None
        self.chain_id = CHAIN
        self.asked: list[tuple[str, list[Any]]] = []
        self.url = ""
        self.tasks: set[asyncio.Task[None]] = set()

    @property
    def head(self) -> int:
        return self.chain.head - self.lag

    def truth(self, method: str, params: list[Any]) -> Any:
        if method == "eth_chainId":
            return hex(self.chain_id)
        if method == "eth_syncing":
            return False
        if method == "eth_getBlockByNumber":
            number = {"latest": self.head, "finalized": self.chain.final}.get(params[0], params[0])
            number = int(number, 16) if isinstance(number, str) else number
            return self.chain.blocks[number] if number is not None and number <= self.head else None
        if method == "eth_getBlockByHash":
            block = self.chain.known.get(params[0])
            return block if block is not None and int(block["number"], 16) <= self.head else None
        if method == "eth_getLogs":
            return self._logs(params[0])
        if method == "eth_call":
            return "0x" + word("6") if params[0]["to"] == TOKEN else "0x"
        raise LookupError(f"the method {method} does not exist")

    def _logs(self, query: dict[str, Any]) -> list[dict[str, Any]]:
        if "blockHash" in query:
            blocks = [query["blockHash"]]
        else:
            first, last = (int(query[name], 16) for name in ("fromBlock", "toBlock"))
            blocks = [block["hash"] for block in self.chain.blocks[first : min(last, self.head) + 1]]
        logs = [log for hash in blocks for log in self.chain.logs[hash]]
        if "address" not in query:
            return logs
        return [log for log in logs if log["address"] == query["address"] and log["topics"][0] in query["topics"][0]]

    def answer(self, asked: dict[str, Any]) -> bytes:
        self.asked.append((asked["method"], asked["params"]))
        said = None if self.fault is None else self.fault(asked["method"], asked["params"])
        if isinstance(said, bytes):
            return said
        told: dict[str, Any] = {"jsonrpc": "2.0", "id": asked["id"]}
        try:
            if isinstance(said, Exception):
                raise said
            told["result"] = (
                self.truth(asked["method"], asked["params"]) if said is None else None if said is NULL else said
            )
        except LookupError as error:
            told["error"] = {"code": -32601, "message": str(error)}
        except Exception as error:
            code, message = error.args
            told["error"] = {"code": code, "message": message}
        return answered(json.dumps(told).encode())

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                size = int(head.partition(b"content-length:")[2].split()[0])
                writer.write(self.answer(json.loads(await reader.readexactly(size))))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.tasks.discard(task)
            writer.close()


def answered(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """One HTTP answer."""
    return "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]).encode() + body


@asynccontextmanager
async def serving(*nodes: FakeNode) -> AsyncIterator[Sequence[str]]:
    """The URLs of the nodes while they serve."""
    servers = [await asyncio.start_server(node.serve, "127.0.0.1", 0) for node in nodes]
    try:
        for node, server in zip(nodes, servers, strict=True):
            node.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield [node.url for node in nodes]
    finally:
        for node, server in zip(nodes, servers, strict=True):
            server.close()
            for task in list(node.tasks):
                task.cancel()
                await asyncio.wait([task])
