"""What a reader wishes of channels: which options each takes, and where it begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from tapewick._client_fields import Time, milliseconds
from tapewick._client_follow import Followed
from tapewick._client_pages import PAGE
from tapewick.channel import Channel
from tapewick.errors import BadRequest, ConfigError

__all__ = ["followed"]

DURABLE = {"snapshot", "times"}
OPTIONS = {
    "trade": DURABLE | {"backfill"},
    "candle": DURABLE | {"mode", "max_rate"},
    "ticker": {"mode", "max_rate"},
    "bbo": {"mode", "max_rate"},
    "book_top": {"mode", "max_rate", "levels"},
    "book": {"levels"},
}


def followed(
    names: Sequence[str],
    options: Mapping[str, Any],
    since: str | int | Mapping[str, str] | None,
    start: Time | None,
) -> list[Followed]:
    """The channels ``names``, each with those of ``options`` that its kind takes; None leaves one out.

    Each begins behind position ``since`` (a mapping: per channel), or with the rows from ``start`` on. Raises
    ``ConfigError`` without a channel, ``BadRequest`` for an option that none of them takes.
    """
    wanted = [Channel.parse(name) for name in dict.fromkeys(names)]
    if not wanted:
        raise ConfigError("name at least one channel, for example trade@sim:BTCUSDT")
    taken = set[str]().union(*(OPTIONS.get(channel.kind, set()) for channel in wanted))
    for name, value in options.items():
        if value is not None and name not in taken | DURABLE:
            raise BadRequest(f"none of these channels has an option {name}; theirs: {sorted(taken)}", field=name)
    made = []
    for channel in wanted:
        own = OPTIONS.get(channel.kind, set())
        one = Followed(channel.name, {k: v for k, v in options.items() if k in own and v is not None})
        at = since.get(channel.name) if isinstance(since, Mapping) else since
        if channel.durable and at is not None:
            one.position = str(at)
        elif channel.durable and start is not None:
            _begin(one, channel, milliseconds(start) or 0)
        made.append(one)
    return made


def _begin(one: Followed, channel: Channel, start: int) -> None:
    """Make ``one`` begin with the rows from ``start`` ms on."""
    if channel.tf is not None and channel.tf.index == 0:
        one.since = {"ts": start}  # candles of 1s have no stored versions: only the server can join them
        return
    asked = {"instrument": channel.instrument, "start": start, "limit": PAGE, "times": "ns"}
    if channel.tf is None:
        one.opening = f"/v1/trades?{urlencode(asked)}"
    else:
        one.opening = f"/v1/candles?{urlencode({**asked, 'tf': channel.tf.name})}"
