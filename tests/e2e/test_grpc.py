"""The demo with its gRPC port, as a person starts it."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import grpc

from tapewick.v1 import service_pb2 as pb
from tapewick.v1 import service_pb2_grpc as rpc
from tests.e2e.server import Server


def test_the_demo_serves_grpc_and_stops_in_time(tmp_path: Path) -> None:
    ports = ("--port", "0", "--grpc", "true", "--grpc-port", "0", "--data", tmp_path / "data")
    with Server("demo", *ports) as server:
        server.ready()
        told = re.search(r"gRPC (127\.0\.0\.1:\d+)", server.lines[0])
        assert told, server.lines
        with grpc.insecure_channel(told[1]) as channel:
            market = rpc.MarketDataStub(channel)  # type: ignore[no-untyped-call]
            server.wait_for(lambda: len(market.ListInstruments(pb.ListInstrumentsRequest()).instruments) == 3)
            wanted = pb.Subscription(channel="trade@sim:BTCUSDT", since="0")
            asked = iter([pb.SubscribeRequest(subscribe=pb.Subscribe(channels=[wanted]))])
            call = market.Subscribe(asked, timeout=60)
            seen = 0
            for frame in call:
                seen += len(frame.trades.seq)
                if frame.type == pb.Frame.EVENT and len(frame.trades.seq) < 100:  # all of the past, and live
                    break
            assert seen == frame.trades.seq[-1], "every trade from the first on"
            answer = market.GetCandles(pb.GetCandlesRequest(instrument="sim:BTCUSDT", timeframe="1h"), timeout=20)
            assert len(answer.candles.close) >= 5
            server.process.send_signal(signal.SIGTERM)
            ended = None
            try:
                for frame in call:
                    seen += len(frame.trades.seq)
            except grpc.RpcError as error:
                ended = error.code()  # type: ignore[attr-defined]
            assert ended == grpc.StatusCode.UNAVAILABLE
            assert server.process.wait(10) == 143
