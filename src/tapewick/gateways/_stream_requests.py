"""What a client of ``/v1/ws`` may ask, as one JSON object per message."""

from __future__ import annotations

import re
from typing import Annotated, Literal, get_args, get_origin, get_type_hints

import msgspec

from tapewick.errors import BadRequest
from tapewick.gateways import _wishes

__all__ = ["Auth", "Id", "List", "Malformed", "Op", "Ping", "Subscribe", "Unsubscribe", "parse"]

Id = int | Annotated[str, msgspec.Meta(max_length=64)] | None


class Subscribe(msgspec.Struct, tag_field="op", tag="subscribe", forbid_unknown_fields=True):
    """Send these channels; one that is subscribed to already begins anew."""

    channels: Annotated[list[_wishes.Wanted], msgspec.Meta(min_length=1, max_length=100)]
    id: Id = None


class Named(msgspec.Struct, forbid_unknown_fields=True):
    """A channel by its name alone."""

    ch: Annotated[str, msgspec.Meta(max_length=128)]


class Unsubscribe(msgspec.Struct, tag_field="op", tag="unsubscribe", forbid_unknown_fields=True):
    """Send these channels no more."""

    channels: Annotated[list[Named], msgspec.Meta(min_length=1, max_length=1024)]
    id: Id = None


class Auth(msgspec.Struct, tag_field="op", tag="auth", forbid_unknown_fields=True):
    """Show a token; the first message of whoever showed none with the upgrade."""

    token: Annotated[str, msgspec.Meta(max_length=1024)]
    id: Id = None


class Ping(msgspec.Struct, tag_field="op", tag="ping", forbid_unknown_fields=True):
    """Be answered ``pong``."""

    id: Id = None


class List(msgspec.Struct, tag_field="op", tag="list", forbid_unknown_fields=True):
    """Be told which channels are subscribed to."""

    id: Id = None


class _AnyId(msgspec.Struct):
    id: Id = None


Op = Subscribe | Unsubscribe | Auth | Ping | List
OPS = ("subscribe", "unsubscribe", "auth", "ping", "list")
CHOICES = {
    name: [value for one in get_args(hint) for value in get_args(one)]
    for name, hint in get_type_hints(_wishes.Wanted).items()
    if any(get_origin(one) is Literal for one in get_args(hint))
}
"""Values of the options that have only a few."""

_decode = msgspec.json.Decoder(Op).decode
_decode_id = msgspec.json.Decoder(_AnyId).decode


class Malformed(BadRequest):
    """A message that is none of these; ``id`` is its id, if it has a good one."""

    def __init__(self, message: str, id: Id) -> None:
        super().__init__(message)
        self.id = id


def parse(text: bytes) -> Op:
    """The request in a message. Raises ``Malformed``."""
    try:
        op: Op = _decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Malformed(_told(f"{error}"[:200]), _id_of(text)) from None
    return op


def _told(said: str) -> str:
    """What the decoder found wrong, with the choices there are."""
    if "`$.op`" in said or said == "Object missing required field `op`":
        return f"{said}; `op` is one of {', '.join(OPS)}"
    field = re.search(r"\.(\w+)`$", said)
    choices = CHOICES.get(field[1]) if field else None
    return said if choices is None else f"{said}; it is one of {', '.join(map(str, choices))}"


def _id_of(text: bytes) -> Id:
    try:
        return _decode_id(text).id
    except (msgspec.DecodeError, RecursionError):
        return None
