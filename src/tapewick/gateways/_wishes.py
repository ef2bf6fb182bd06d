"""What a client may ask of a channel: the same options and defaults on every push transport."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from tapewick.channel import Channel, Since, parse_position
from tapewick.errors import BadRequest
from tapewick.hub import Admitted, Request

__all__ = ["MAX_SNAPSHOT", "SinceTime", "Wanted", "request", "told"]

MAX_SNAPSHOT = 1000
DEFAULT_SNAPSHOT = {"trade": 100, "candle": 2}
STEPS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)  # seconds between values, for whom the default is too much
DEFAULT_LEVELS = {"book": 20, "book_top": 20}


class SinceTime(msgspec.Struct, forbid_unknown_fields=True):
    """Begin with what was stored from this time on, in ms since 1970."""

    ts: Annotated[int, msgspec.Meta(ge=0, le=9_223_372_036_854)]


class Wanted(msgspec.Struct, forbid_unknown_fields=True):
    """A wish for one channel, as written."""

    ch: Annotated[str, msgspec.Meta(max_length=128)]
    snapshot: Annotated[int, msgspec.Meta(ge=0, le=MAX_SNAPSHOT)] | None = None
    since: str | int | SinceTime | None = None
    backfill: Literal["all", "skip"] | None = None
    levels: Literal[5, 10, 20, 50, 100, 500] | None = None
    mode: Literal["all", "conflate", "latest"] | None = None
    max_rate: Annotated[float, msgspec.Meta(ge=0.1, le=50)] | None = None
    times: Literal["ms", "ns"] | None = None
    strict: bool | None = None


def options(channel: Channel) -> set[str]:
    """Names of the options channels of this kind have."""
    takes = {"snapshot", "since"} if channel.durable else set()
    takes |= {"times", "strict"} if channel.durable else set()
    takes |= {"backfill"} if channel.kind == "trade" else set()
    takes |= {"mode", "max_rate"} if channel.kind in ("candle", "bbo", "book_top", "ticker") else set()
    return takes | ({"levels"} if channel.kind in DEFAULT_LEVELS else set())


def _pace(wanted: Wanted) -> float | None:
    """Seconds between values, in steps, so that few readers differ; 0 for every one, None for the default."""
    if wanted.mode == "all":
        if wanted.max_rate is not None:
            raise BadRequest("mode all sends every value: leave max_rate out, or use mode latest", field="max_rate")
        return 0.0
    if wanted.max_rate is None:
        return 1.0 if wanted.mode == "latest" else None
    return next(step for step in STEPS if step * wanted.max_rate >= 0.999_999)


def request(wanted: Wanted, *, proto: bool = False) -> Request:
    """The wish, with the defaults of its kind; ``proto``: its frames are to be protobuf, whose times are ns.

    Raises ``BadRequest`` for an option its kind does not have.
    """
    channel = Channel.parse(wanted.ch)
    takes = options(channel) - ({"times"} if proto else set())
    return _request(channel, wanted, takes)._replace(proto=proto)


def _request(channel: Channel, wanted: Wanted, takes: set[str]) -> Request:
    for name in ("snapshot", "since", "backfill", "levels", "mode", "max_rate", "times", "strict"):
        legal = name in takes or (name == "mode" and wanted.mode == "all")  # elsewhere nothing is left out anyway
        if getattr(wanted, name) is not None and not legal:
            theirs = ", ".join(sorted(takes)) or "none"
            raise BadRequest(f"{channel.kind} channels have no option {name}; theirs: {theirs}", field=name)
    pace = _pace(wanted) if "mode" in takes else None
    if not channel.durable:
        return Request(channel, levels=wanted.levels or DEFAULT_LEVELS.get(channel.kind, 0), pace=pace)
    snapshot = DEFAULT_SNAPSHOT[channel.kind] if wanted.snapshot is None else wanted.snapshot
    since = wanted.since
    made = Request(channel, snapshot, skip=wanted.backfill == "skip", pace=pace, ns=wanted.times == "ns")
    if isinstance(since, SinceTime):
        return made._replace(snapshot=MAX_SNAPSHOT, start=since.ts * 1_000_000)
    if isinstance(since, int):
        if not 0 <= since < 2**63:
            raise BadRequest("since must be a position: epoch:offset, or an offset", field="since")
        return made._replace(since=Since(None, since))
    return made if since is None else made._replace(since=parse_position(since))


def told(admitted: Admitted) -> dict[str, object]:
    """How an admitted wish is told to its client."""
    channel, levels, pace = admitted.request.channel, admitted.request.levels, admitted.request.pace
    rate = {"max_rate": round(1 / pace, 3)} if pace else {}
    if not channel.durable:
        return {"ch": channel.name, "recovered": False, **({"levels": levels} if levels else {}), **rate}
    row: dict[str, object] = {"ch": channel.name, "pos": admitted.pos, "recovered": admitted.recovered, **rate}
    return row if admitted.replayed is None else {**row, "replayed": admitted.replayed}
