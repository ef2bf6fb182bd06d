"""``/v1/orders``: on-chain orders as scanners found them, and the events they are the fold of.

Amounts are plain decimals, addresses in checksum form, times ISO 8601. An order is as final as its newest event.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Annotated

import msgspec
from litestar import Response, Router, get
from litestar.params import FromPath, QueryParameter

from tapewick.chain.keccak import checksum
from tapewick.errors import BadRequest, NotFound
from tapewick.gateways._asking import AnyRequest, answer, documented, heavy_rows, market_of, only_known, with_changes
from tapewick.scans import Finality, OrderFilter, Placed, Seen

__all__ = ["router"]

STATUSES = ("PENDING", "EXECUTED", "CANCELLED", "EXPIRED", "FAILED")
AFTER: dict[str, str] = {"created": "PENDING", "modified": "PENDING", "executed": "EXECUTED", "cancelled": "CANCELLED"}
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}", re.ASCII)
_COMPONENT = re.compile(r"\d{1,16}/0x[0-9a-fA-F]{40}", re.ASCII)
_NUMBER = re.compile(r"\d{1,78}", re.ASCII)

Component = Annotated[str | None, QueryParameter(description="One contract, as CHAINID/0xADDRESS.")]
Least = Annotated[Finality, QueryParameter(description="The least finality of what is answered.")]


class OrderRow(msgspec.Struct):
    """One order; null where nothing is known. ``block_number`` and ``block_hash`` are of its newest event."""

    id: str
    component: str
    user_address: str | None
    token_in: str | None
    token_out: str | None
    amount_in: str | None
    target_price: str | None
    min_amount_out: str | None
    order_type: str | None
    is_long: bool
    status: str
    created_at: str | None
    executed_at: str | None
    updated_at: str | None
    self_executable: bool
    tx_hash: str | None
    block_number: int
    block_hash: str | None
    executor_address: str | None
    amount_out: str | None
    execution_tx_hash: str | None
    decimals_known: bool
    finality: Finality
    confirmations: int


class OrdersAnswer(msgspec.Struct):
    """A page of orders, newest first. ``next``: the address of the following page, null on the last."""

    orders: list[OrderRow]
    next: str | None


class OrderAnswer(msgspec.Struct):
    """The order asked for."""

    order: OrderRow


class OrderEventRow(msgspec.Struct):
    """One event. ``event_data``: its decoded values, integers as decimal strings."""

    event_type: str
    old_status: str | None
    new_status: str
    tx_hash: str
    block_number: int
    block_hash: str
    log_index: int
    timestamp: str | None
    event_data: dict[str, str]
    finality: Finality
    confirmations: int


class OrderEventsAnswer(msgspec.Struct):
    """What happened to one order, the first first; ``total`` counts all of ``events``."""

    order_id: str
    component: str
    events: list[OrderEventRow]
    total: int


@get("/orders", summary="On-chain orders, newest first", responses=documented(OrdersAnswer))
async def orders(
    request: AnyRequest,
    status: Annotated[
        str | None, QueryParameter(description="PENDING, EXECUTED, CANCELLED, EXPIRED or FAILED.")
    ] = None,
    user: Annotated[str | None, QueryParameter(description="The address that placed them.")] = None,
    component: Component = None,
    finality: Least = "confirmed",
    limit: Annotated[int, QueryParameter(ge=1, le=1000, description="Most orders in the answer.")] = 100,
    cursor: Annotated[str | None, QueryParameter(description="From ``next`` of the answer before.")] = None,
) -> Response[bytes]:
    """Those that match every parameter, and are at least as final as ``finality``. ``next`` is the address of the
    following page, null on the last one."""
    wanted = OrderFilter(
        component=_component(component),
        status=_status(status),
        user=_address(user, "user"),
        finality=finality,
        before=None if cursor is None else _place(cursor),
        limit=limit + 1,
    )
    with heavy_rows(request, limit):
        found = await market_of(request).scans().placed_orders(wanted)
    page = found[:limit]
    following = with_changes(request, cursor=_cursor(page[-1])) if len(found) > limit else None
    # Addresses in checksum form cost a hash each the first time.
    rows = await asyncio.to_thread(lambda: [_row(one) for one in page])
    return answer(msgspec.json.encode(OrdersAnswer(rows, following)))


@get("/orders/{id:str}", summary="One on-chain order", responses=documented(OrderAnswer))
async def order(request: AnyRequest, id: FromPath[str], component: Component = None) -> Response[bytes]:
    """Whatever its finality. ``component`` is needed where several contracts have an order of that number."""
    return answer(msgspec.json.encode(OrderAnswer(_row(await _one(request, id, component)))))


@get("/orders/{id:str}/events", summary="What happened to one on-chain order", responses=documented(OrderEventsAnswer))
async def events(request: AnyRequest, id: FromPath[str], component: Component = None) -> Response[bytes]:
    """Its canonical events, the first first."""
    found = await _one(request, id, component)
    told = await market_of(request).scans().seen_events(found.component, found.order.order_id)
    rows: list[OrderEventRow] = []
    for one in told:
        rows.append(_event(one, rows[-1].new_status if rows else None))
    body = OrderEventsAnswer(found.order.order_id, _shown(found.component), rows, len(rows))
    return answer(msgspec.json.encode(body))


async def _one(request: AnyRequest, id: str, component: str | None) -> Placed:
    if not _NUMBER.fullmatch(id):
        raise BadRequest("Invalid order_id format. Must be a number.", field="id")
    number = id.lstrip("0") or "0"
    wanted = OrderFilter(component=_component(component), order_id=number, limit=10)
    found = await market_of(request).scans().placed_orders(wanted)
    if not found:
        raise NotFound(f"Order {number} not found", field="id")
    if len(found) > 1:
        several = ", ".join(_shown(one.component) for one in found)
        raise BadRequest(
            f"several contracts have an order {number} ({several}): name one as component", field="component"
        )
    one: Placed = found[0]
    return one


def _status(text: str | None) -> str:
    if text is not None and text.upper() not in STATUSES:
        raise BadRequest(f"Invalid status. Use: {', '.join(one.lower() for one in STATUSES)}", field="status")
    return (text or "").upper()


def _address(text: str | None, field: str) -> str:
    if text is not None and not _ADDRESS.fullmatch(text):
        raise BadRequest(f"{field}={text[:60]!r} is no address; write 0x and 40 hex digits", field=field)
    return (text or "").lower()


def _component(text: str | None) -> str:
    if text is not None and not _COMPONENT.fullmatch(text):
        raise BadRequest(f"component={text[:60]!r} is no contract; write CHAINID/0xADDRESS", field="component")
    return (text or "").lower()


def _cursor(last: Placed) -> str:
    """Behind which order the next page begins."""
    text = f"{last.order.created_at}:{last.component}:{last.order.order_id}"
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _place(cursor: str) -> tuple[int, str, str]:
    try:
        text = urlsafe_b64decode(cursor.encode() + b"=" * (-len(cursor) % 4)).decode()
        created_at, component, order_id = text.split(":")
        at = int(created_at)
    except ValueError:
        at, component, order_id = -1, "", ""
    if not (0 <= at < 2**63 and _COMPONENT.fullmatch(component) and _NUMBER.fullmatch(order_id)):
        raise BadRequest("cursor is none that an answer gave: take the address in next", field="cursor")
    return at, component, order_id


def _shown(component: str) -> str:
    """A component with its address in checksum form."""
    chain, _, contract = component.partition("/")
    return f"{chain}/{checksum(contract)}"


def _printed(address: str) -> str | None:
    return checksum(address) if address else None


def _time(ns: int) -> str | None:
    if not ns:
        return None
    moment: dt.datetime = dt.datetime.fromtimestamp(ns // 10**9, dt.UTC)
    return moment.isoformat()


def _row(one: Placed) -> OrderRow:
    own = one.order
    return OrderRow(
        id=own.order_id,
        component=_shown(one.component),
        user_address=_printed(own.user),
        token_in=_printed(own.token_in),
        token_out=_printed(own.token_out),
        amount_in=own.amount_in or None,
        target_price=own.target_price or None,
        min_amount_out=own.min_amount_out or None,
        order_type=own.order_type or None,
        is_long=own.is_long,
        status=own.status,
        created_at=_time(own.created_at),
        executed_at=_time(own.executed_at),
        updated_at=_time(own.updated_at),
        self_executable=own.self_executable,
        tx_hash=own.tx_hash or None,
        block_number=own.last_block,
        block_hash=own.last_block_hash or None,
        executor_address=_printed(own.executor),
        amount_out=own.amount_out or None,
        execution_tx_hash=own.execution_tx_hash or None,
        decimals_known=own.decimals_known,
        finality=one.finality,
        confirmations=one.confirmations,
    )


def _event(one: Seen, before: str | None) -> OrderEventRow:
    own = one.event
    return OrderEventRow(
        event_type=own.kind,
        old_status=before,
        new_status=AFTER[own.kind],
        tx_hash=own.tx_hash,
        block_number=own.block,
        block_hash=own.block_hash,
        log_index=own.log_index,
        timestamp=_time(own.ts),
        event_data=own.fields,
        finality=one.finality,
        confirmations=one.confirmations,
    )


def router() -> Router:
    """The routes; they find the market in ``app.state.market``."""
    return Router("/v1", route_handlers=[orders, order, events], before_request=only_known, tags=["orders"])
