"""Announcements of orders as protobuf: an event, an order, and what is told of them."""

from __future__ import annotations

from typing import Any

import msgspec

from tapewick._wire_fields import Field, decode_fields, encode_fields, fields
from tapewick.scans import Announcement, Order, OrderEvent

__all__ = ["ANNOUNCEMENT", "get_announcement", "put_announcement"]

ANNOUNCEMENT = fields("component:str seq:int kind:str order_id:str finality:str confirmations:int event:sub order:sub")
_EVENT = fields(
    "contract:str block:int block_hash:str tx_hash:str log_index:int ts:fixed kind:str order_id:str fields:subs"
)
_ENTRY = fields("key:str value:str")
_ORDER = fields(
    "contract:str order_id:str status:str user:str token_in:str token_out:str amount_in:str target_price:str "
    "min_amount_out:str order_type:str is_long:bool self_executable:bool decimals_in:int decimals_out:int "
    "decimals_known:bool stub:bool created_at:fixed updated_at:fixed executed_at:fixed executor:str amount_out:str "
    "execution_tx_hash:str tx_hash:str block:int last_block:int last_block_hash:str"
)


def put_announcement(m: Announcement) -> bytes:
    """Its protobuf bytes."""
    event = None if m.event is None else _put(_EVENT, m.event, fields=_put_map(m.event.fields))
    order = None if m.order is None else _put(_ORDER, m.order)
    return _put(ANNOUNCEMENT, m, event=event, order=order)


def get_announcement(values: dict[str, Any]) -> Announcement:
    """The message of its fields. Raises ``msgspec.ValidationError`` for what it may not hold."""
    event, order = values.pop("event"), values.pop("order")
    if event is not None:
        told = decode_fields(_EVENT, memoryview(event))
        told["fields"] = _get_map(told["fields"])
        event = msgspec.convert(told, OrderEvent)
    if order is not None:
        order = msgspec.convert(decode_fields(_ORDER, memoryview(order)), Order)
    bare = msgspec.convert(values, Announcement)
    return msgspec.structs.replace(bare, event=event, order=order)


def _put(known: tuple[Field, ...], message: msgspec.Struct, **own: Any) -> bytes:
    return encode_fields(known, {f.name: own[f.name] if f.name in own else getattr(message, f.name) for f in known})


def _put_map(values: dict[str, str]) -> list[bytes]:
    """Entries in the order of their keys, so that the same map has the same bytes."""
    parts = []
    for key, value in sorted(values.items()):
        entry = encode_fields(_ENTRY, {"key": key, "value": value})
        # Unlike the fields of a message, those of an entry are always written.
        entry = entry if key else b"\x0a\x00" + entry
        parts.append(entry if value else entry + b"\x12\x00")
    return parts


def _get_map(entries: list[Any]) -> dict[str, str]:
    found = {}
    for entry in entries:
        told = decode_fields(_ENTRY, memoryview(entry))
        found[told["key"]] = told["value"]
    return found
