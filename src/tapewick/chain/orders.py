"""An order is the fold of its canonical events, by block and log index, and of nothing else.

So it does not matter in which batches they came, how often the scanner was restarted, or what the chain replaced:
the same events leave the same order.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tapewick.decimals import format_mantissa
from tapewick.scans import Order, OrderEvent

__all__ = ["Fold", "fold", "is_known", "place"]

PRICE_SCALE = 18
UNKNOWN_SCALE = 18  # decimals of a token that does not tell
TYPES = {"0": "LIMIT", "1": "STOP_LOSS", "2": "MARKET", "3": "CONDITIONAL"}


def place(event: OrderEvent) -> tuple[int, int]:
    """What orders events of one chain."""
    return event.block, event.log_index


def is_known(event: OrderEvent) -> bool:
    """Whether the event tells what was ordered."""
    return event.kind == "created" or "order.user" in event.fields


def fold(events: Iterable[OrderEvent]) -> Order | None:
    """The order these events (of one order, in order) leave behind; None for none."""
    made = Fold()
    for event in events:
        made.take(event)
    return made.order()


class Fold:
    """An order while its events are taken in; amounts are the chain's integers."""

    def __init__(self) -> None:
        self._state: dict[str, Any] = {}
        self._amounts: dict[str, Any] = {}
        self._decimals: dict[str, str] = {}
        self._known = False

    def take(self, event: OrderEvent) -> None:
        """Apply one more event, later than all before."""
        state, fields = self._state, event.fields
        if not state:
            state |= {"contract": event.contract, "order_id": event.order_id, "status": "PENDING"}
            state |= {"tx_hash": event.tx_hash, "block": event.block}
        if is_known(event) and (event.kind == "created" or not self._known):
            self._placed(event)
        if event.kind == "created":
            state["status"] = "PENDING"
            for name in ("executor", "executed_at", "execution_tx_hash"):  # of one with the same id before it
                state.pop(name, None)
            self._amounts.pop("amount_out", None)
        elif event.kind == "modified":
            self._amounts |= {name: fields[name] for name in ("target_price", "min_amount_out")}
        elif event.kind == "executed":
            self._amounts["amount_out"] = fields["amount_out"]
            state |= {"status": "EXECUTED", "executor": fields["executor"]}
            state |= {"executed_at": event.ts, "execution_tx_hash": event.tx_hash}
        elif event.kind == "cancelled":
            state["status"] = "CANCELLED"
            state.setdefault("user", fields["user"])
        state |= {"updated_at": event.ts, "last_block": event.block, "last_block_hash": event.block_hash}

    def _placed(self, event: OrderEvent) -> None:
        """What was ordered, by the event's own word before the contract's."""
        self._known = True
        told = {name.removeprefix("order."): value for name, value in event.fields.items() if name[:6] == "order."}
        told |= {name: value for name, value in event.fields.items() if "." not in name and event.kind == "created"}
        self._state |= {name: told[name] for name in ("user", "token_in", "token_out")}
        self._amounts |= {name: told[name] for name in ("amount_in", "target_price", "min_amount_out") if name in told}
        if (number := told.get("order_type")) is not None:
            self._state["order_type"] = TYPES.get(number, number)
        self._state |= {name: told[name] == "1" for name in ("is_long", "self_executable") if name in told}
        seconds = int(told.get("created_at", "0"))
        # Stores keep times as int64 ns; a contract may claim any second.
        self._state["created_at"] = seconds * 10**9 if 0 < seconds < 2**33 else event.ts
        self._decimals |= {
            name.removeprefix("decimals."): value for name, value in event.fields.items() if name[:9] == "decimals."
        }

    def order(self) -> Order | None:
        """The order as it stands; None before its first event."""
        if not self._state:
            return None
        sides = {side: self._decimals.get(side) for side in ("token_in", "token_out")}
        scale_in, scale_out = (UNKNOWN_SCALE if text is None else int(text) for text in sides.values())
        scales = {"amount_in": scale_in, "min_amount_out": scale_out, "amount_out": scale_out}
        amounts: dict[str, Any] = {
            name: format_mantissa(int(number), scales.get(name, PRICE_SCALE)) for name, number in self._amounts.items()
        }
        return Order(
            **self._state,
            **amounts,
            decimals_in=scale_in,
            decimals_out=scale_out,
            decimals_known=None not in sides.values(),
            stub=not self._known,
        )
