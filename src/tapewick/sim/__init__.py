"""A simulated venue that speaks Binance's protocol over real sockets: seeded or recorded trades, scripted faults."""
