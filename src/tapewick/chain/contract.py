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


class ContractReader:
    """Reads orders of ``contract`` and the decimals of tokens, which are cached."""

    def __init__(self, rpc: JsonRpc, contract: str) -> None:
        self._rpc = rpc
        self._contract = contract
        self._decimals = {NO_ADDRESS: 18}

    async def completed(self, event: OrderEvent) -> OrderEvent:
        """The event with what ``getOrder`` says of its order (``order.*``) and the decimals of both tokens.

        Where the contract does not know the order, or a token its decimals, they are left out.
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
        answer = await self._call(self._contract, f"{GET_ORDER}{int(event.order_id):064x}", event)
        try:
            known = order_of(answer)
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
            if len(self._decimals) > 10_000:  # a contract may name as many tokens as it likes
                self._decimals = {NO_ADDRESS: 18}
            self._decimals[token] = digits
        return self._decimals[token]

    async def _call(self, to: str, data: str, event: OrderEvent) -> str:
        """What the call answers; empty where the contract refuses it, or there is none."""
        asked = {"to": to, "data": data}
        try:
            return await self._read([asked, {"blockHash": event.block_hash}])
        except NodeRefused as error:
            if not error.final:
                raise
            if error.code != -32602:
                return ""
        try:  # a node that knows blocks by height only
            return await self._read([asked, hex(event.block)])
        except NodeRefused as error:
            if not error.final:
                raise
            return ""

    async def _read(self, params: list[Any]) -> str:
        return (await self._rpc.call("eth_call", params, str)).lower()
