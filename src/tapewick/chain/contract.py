"""What an event does not say and the contract knows, read as it was at the event's own block."""

from __future__ import annotations

from typing import Any

import msgspec

from tapewick.chain.decoding import Misfit, order_of, word_of
from tapewick.errors import NodeRefused
from tapewick.net.jsonrpc import JsonRpc
from tapewick.scans import OrderEvent

__all__ = ["ContractReader"]

GET_ORDER = "0xd09ef241"
DECIMALS = "0x313ce567"
NO_ADDRESS = "0x" + "0" * 40
PATIENCE = 3  # times every address refuses a token's decimals before they count as unknown
MEMORY = 10_000  # tokens: a contract may name as many as it likes
ANSWERS = 2000  # orders whose answer is kept: what fails later in a step does not have all of them asked for again


class ContractReader:
    """Reads orders of ``contract`` and the decimals of tokens, which are cached."""

    def __init__(self, rpc: JsonRpc, contract: str) -> None:
        self._rpc = rpc
        self._contract = contract
        self._decimals = {NO_ADDRESS: 18}
        self._refused: dict[str, int] = {}
        self._answers: dict[tuple[str, str], str] = {}

    async def completed(self, event: OrderEvent) -> OrderEvent:
        """The event with what ``getOrder`` says of its order (``order.*``) and the decimals of both tokens.

        Where the contract does not know the order, or a token its decimals, they are left out. Raises what the
        nodes raise; a token whose decimals every address refuses again and again has none that are known.
        """
        fields = dict(event.fields)
        known = await self._order(event)
        fields |= {f"order.{name}": value for name, value in known.items()}
        for side in ("token_in", "token_out"):
            token = fields.get(side) or fields.get(f"order.{side}")
            if token is not None and (digits := await self._decimals_of(token, event)) is not None:
                fields[f"decimals.{side}"] = str(digits)
        return msgspec.structs.replace(event, fields=fields)

    async def _order(self, event: OrderEvent) -> dict[str, str]:
        place = (event.block_hash, event.order_id)
        if place not in self._answers:
            answer = await self._call(self._contract, f"{GET_ORDER}{int(event.order_id):064x}", event)
            if len(self._answers) >= ANSWERS:
                self._answers.clear()
            self._answers[place] = answer
        try:
            known = order_of(self._answers[place])
        except Misfit:
            return {}
        there = known["id"] == event.order_id and known["user"] != NO_ADDRESS
        return known if there else {}

    async def _decimals_of(self, token: str, event: OrderEvent) -> int | None:
        if token not in self._decimals:
            try:
                digits = int(word_of((await self._call(token, DECIMALS, event)).removeprefix("0x"), "uint8"))
            except Misfit:
                return None
            except NodeRefused as error:
                if error.rate or not self._given_up(token):
                    raise
                return None
            if len(self._decimals) > MEMORY:
                self._decimals = {NO_ADDRESS: 18}
            self._decimals[token] = digits
            self._refused.pop(token, None)
        return self._decimals[token]

    def _given_up(self, token: str) -> bool:
        """Whether that it was refused once more is enough: one token must not hold up a contract for good."""
        if len(self._refused) > MEMORY:
            self._refused.clear()
        self._refused[token] = self._refused.get(token, 0) + 1
        return self._refused[token] >= PATIENCE

    async def _call(self, to: str, data: str, event: OrderEvent) -> str:
        """What the call answers; empty where it fails in the contract, or there is none. Raises ``NodeRefused`` where
        every address refuses it."""
        asked = {"to": to, "data": data}
        for last in reversed(range(self._rpc.width)):
            try:
                try:
                    return await self._read([asked, {"blockHash": event.block_hash}])
                except NodeRefused as error:
                    if error.code != -32602 or error.halted:
                        raise
                return await self._read([asked, hex(event.block)])  # a node that knows blocks by height only
            except NodeRefused as error:
                if error.halted:
                    return ""
                if not (error.final and last):  # what is not final was asked of all addresses already
                    raise
                self._rpc.distrust(error)
        raise AssertionError("an address was asked, or raised")

    async def _read(self, params: list[Any]) -> str:
        return (await self._rpc.call("eth_call", params, str)).lower()
