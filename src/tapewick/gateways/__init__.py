"""What clients talk to, each over ``market.Market``: HTTP, WebSocket, event streams, gRPC, Binance's protocol, UDF."""
