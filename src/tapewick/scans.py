"""The vocabulary of scanning: blocks, order events, orders, and the one step a scanner commits.

Hashes and addresses are ``0x…`` in lower case (``chain.keccak.checksum`` prints an address); times are UTC ns;
integers that can exceed 64 bits are decimal text. ``component`` is ``CHAINID/0xcontract`` everywhere.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

import msgspec

__all__ = [
    "Announcement",
    "Block",
    "Finality",
    "Order",
    "OrderEvent",
    "OrderFilter",
    "Placed",
    "ScanCommit",
    "ScanStatus",
    "Scanned",
    "Seen",
    "chain_of",
    "lease_name",
]

Finality: TypeAlias = Literal["pending", "confirmed", "finalized"]
ScanStatus: TypeAlias = Literal["ACTIVE", "ERROR", "RECOVERY", "RESET"]


class Block(NamedTuple):
    """One block; ``ts`` is its time in ns."""

    number: int
    hash: str
    parent: str
    ts: int


class OrderEvent(msgspec.Struct, frozen=True):
    """One log of a watched contract; its name is ``(block_hash, tx_hash, log_index)``.

    ``kind``: created, modified, executed, cancelled, or raw: it matched the filter, but did not decode, and is kept.
    ``order_id`` is empty for raw. ``fields``: the decoded values and, with the prefix ``order.`` or ``decimals.``,
    what was read from the chain at the event's own block; of a raw one ``topics`` (comma-separated) and ``data``.
    """

    contract: str
    block: int
    block_hash: str
    tx_hash: str
    log_index: int
    ts: int
    kind: Literal["created", "modified", "executed", "cancelled", "raw"]
    order_id: str
    fields: dict[str, str]


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """An order as the fold of its canonical events leaves it.

    Amounts are plain decimal text in whole tokens, exact: ``amount × 10**decimals`` is the integer of the chain.
    Text is empty, and a time 0, where nothing is known. ``stub``: no OrderCreated and no ``getOrder`` told what was
    ordered. ``block`` and ``tx_hash`` are those of its first event, ``last_block…`` those of its newest one, which
    decide about its finality. ``executed_at`` is the time of the block that executed it.
    """

    contract: str
    order_id: str
    status: Literal["PENDING", "EXECUTED", "CANCELLED"]
    user: str = ""
    token_in: str = ""
    token_out: str = ""
    amount_in: str = ""
    target_price: str = ""
    min_amount_out: str = ""
    order_type: str = ""
    is_long: bool = False
    self_executable: bool = False
    decimals_in: int = 18
    decimals_out: int = 18
    decimals_known: bool = False
    stub: bool = False
    created_at: int = 0
    updated_at: int = 0
    executed_at: int = 0
    executor: str = ""
    amount_out: str = ""
    execution_tx_hash: str = ""
    tx_hash: str = ""
    block: int = 0
    last_block: int = 0
    last_block_hash: str = ""


class Announcement(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is told: ``order.created|modified|executed|cancelled|reverted|finality``.

    ``seq`` is the contiguous number the store gave it (0 in a step not yet committed). ``event``: the one it is
    about, None where all of an order is reverted at once. ``order``: as it stands after it, None when no
    canonical event of it is left. ``confirmations``: blocks on top of the event's one when it was told.
    """

    component: str
    seq: int = 0
    kind: Literal[
        "order.created", "order.modified", "order.executed", "order.cancelled", "order.reverted", "order.finality"
    ]
    order_id: str
    finality: Finality
    confirmations: int
    event: OrderEvent | None = None
    order: Order | None = None

    @property
    def instrument(self) -> str:
        """What a bus keeps in order."""
        return self.component

    @property
    def nbytes(self) -> int:
        return 2048 if self.event is None else 2048 + sum(map(len, self.event.fields.values()))


class ScanCommit(msgspec.Struct, frozen=True, kw_only=True):
    """One atomic step of a scanner.

    ``expected``: the stored ``cursor_hash`` this step follows upon, empty for the first one. ``orphaned``: hashes of
    blocks that are canonical no more; so are all events of these blocks, whether or not the store still keeps a row
    of the block. ``blocks``: canonical ones added, ascending, not necessarily without holes (a back-fill keeps the
    last of each range). ``events``: new canonical ones; one whose name is known already is canonical again.
    ``orders``: the whole rows of every order that changed; ``gone``: orders without any canonical event left.
    ``news`` get the next numbers, in their order. ``cursor`` is the last block taken in, ``confirmed`` and
    ``finalized`` the highest of them that are at least that; blocks below ``finalized`` may be pruned.
    ``detail`` says why ``status`` is ERROR. ``follows``: the stored status the scanner knows of: a RESET or RECOVERY
    that an operator ordered since is not overwritten. ``first_block``: the one scanning began at.
    """

    component: str
    expected: str
    follows: ScanStatus = "ACTIVE"
    first_block: int = 0
    cursor: int
    cursor_hash: str
    confirmed: int
    finalized: int
    status: ScanStatus = "ACTIVE"
    detail: str = ""
    blocks: tuple[Block, ...] = ()
    orphaned: tuple[str, ...] = ()
    events: tuple[OrderEvent, ...] = ()
    orders: tuple[Order, ...] = ()
    gone: tuple[str, ...] = ()
    news: tuple[Announcement, ...] = ()


class Scanned(msgspec.Struct, frozen=True, kw_only=True):
    """What a scanner restarts from: the last step's state, the canonical blocks from ``finalized`` on (ascending) and
    the canonical events of blocks above ``finalized`` (by block and log index, raw ones too). ``said``: number of the
    newest announcement a bus is known to have taken."""

    cursor: int
    cursor_hash: str
    confirmed: int
    finalized: int
    status: ScanStatus
    detail: str = ""
    first_block: int = 0
    seq: int = 0
    said: int = 0
    blocks: tuple[Block, ...] = ()
    events: tuple[OrderEvent, ...] = ()


class Placed(NamedTuple):
    """A stored order; its finality is that of its newest event."""

    component: str
    order: Order
    finality: Finality
    confirmations: int


class Seen(NamedTuple):
    """A stored canonical event."""

    event: OrderEvent
    finality: Finality
    confirmations: int


class OrderFilter(NamedTuple):
    """Which orders: "" and None are all. ``before``: created_at, component and order id of the one after which, newest
    first, to go on. ``finality``: the least."""

    component: str = ""
    status: str = ""
    user: str = ""
    order_id: str = ""
    finality: Finality = "pending"
    before: tuple[int, str, str] | None = None
    limit: int = 100
    offset: int = 0

    @property
    def lead(self) -> str:
        """The column of the height an order's newest event must not exceed."""
        return {"pending": "cursor", "confirmed": "confirmed", "finalized": "finalized"}[self.finality]


def chain_of(component: str) -> str:
    """The chain's id in a component's name."""
    return component.partition("/")[0]


def lease_name(component: str) -> str:
    """What the one active scanner of ``component`` holds."""
    return f"scan/{component}"
