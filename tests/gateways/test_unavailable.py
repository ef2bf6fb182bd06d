"""A store that does not answer for a while: no push connection lives on without the data it was to have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from tapewick._client_rows import Trade
from tapewick.client import Client, Rows
from tapewick.errors import StoreError
from tests.gateways.event_source import opened
from tests.gateways.grpc_rig import serving
from tests.gateways.rig import BTC, Rig

TRADES = f"trade@{BTC}"


class Outage:
    """Trades cannot be read, beginning with the ``after``-th time, until ``over``."""

    def __init__(self, store: Any, monkeypatch: pytest.MonkeyPatch, after: int = 0) -> None:
        self.over, self._left, read = False, after, store.trades

        async def flaky(*args: Any, **options: Any) -> Any:
            self._left -= 1
            if self._left < 0 and not self.over:
                raise StoreError("gone")
            return await read(*args, **options)

        monkeypatch.setattr(store, "trades", flaky)


@pytest.mark.parametrize("wish", [{"snapshot": 10}, {"since": 20}])
async def test_a_websocket_is_closed_to_be_resumed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, wish: dict[str, Any]
) -> None:
    await rig.tell(1, 100)
    Outage(rig.store, monkeypatch, after="since" in wish)  # the check whether it is there reads, too
    async with rig.ws() as peer:
        peer.subscribe({"ch": TRADES, **wish})
        await peer.until(lambda p: p.closed)
        assert peer.closed is not None and peer.closed[0] == 1013
        assert [frame["code"] for frame in peer.of("error")] == ["unavailable"]


async def test_an_event_stream_ends_to_be_resumed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await rig.tell(1, 100)
    outage = Outage(rig.store, monkeypatch)
    async with opened(rig.gateway.url, TRADES, snapshot=10) as source:
        await source.until(lambda s: s.ended)
        assert source.events[-1].data["code"] == "unavailable"
    outage.over = True
    async with opened(rig.gateway.url, TRADES, snapshot=10) as source:
        await source.until(lambda s: [event for event in s.events if event.kind == "snapshot"])


async def test_a_grpc_stream_ends_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(tmp_path) as rig:
        await rig.tell(1, 100)
        Outage(rig.store, monkeypatch)
        async with rig.client() as client:
            await client.subscribe({"channel": TRADES, "snapshot": 10})
            await client.until(lambda c: c.code)
            assert client.code == grpc.StatusCode.UNAVAILABLE and "store" in client.details


async def test_the_client_goes_on_by_itself(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await rig.tell(1, 100)
    outage = Outage(rig.store, monkeypatch, after=1)
    seqs: list[int] = []
    async with Client(rig.gateway.url) as client, client.stream(TRADES, since=20) as stream:
        async for item in stream:
            outage.over = True  # the first thing told is that the connection ended
            seqs += [row.seq for row in item.rows if isinstance(row, Trade)] if isinstance(item, Rows) else []
            if seqs and seqs[-1] == 100:
                break
    assert seqs == list(range(21, 101))
