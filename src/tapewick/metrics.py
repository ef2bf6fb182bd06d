"""The one registry of counters, gauges and latency histograms; ``/metrics`` prints it.

Everything is counted per batch, never per trade. Names are ``tapewick_*``; a test holds
this list against the reference page.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = [
    "CONTENT_TYPE",
    "REGISTRY",
    "clients",
    "commit_seconds",
    "commits",
    "conflated",
    "dropped_batches",
    "duplicates",
    "fills",
    "frames",
    "gaps_open",
    "http_requests",
    "quarantined",
    "render",
    "resumes",
    "slow_closes",
    "source_state",
    "subscriptions",
    "trades",
    "wire_bytes",
]

CONTENT_TYPE = "text/plain; version=0.0.4"
REGISTRY = CollectorRegistry()

trades = Counter("tapewick_trades", "New unique trades committed to tapes.", registry=REGISTRY)
duplicates = Counter("tapewick_duplicates", "Trades that were already on the tape.", registry=REGISTRY)
quarantined = Counter("tapewick_quarantined", "Records refused, by reason.", ["reason"], registry=REGISTRY)
commits = Counter("tapewick_commits", "Durable commits.", registry=REGISTRY)
commit_seconds = Histogram(
    "tapewick_commit_seconds",
    "Time a durable commit took.",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
    registry=REGISTRY,
)
gaps_open = Gauge("tapewick_gaps_open", "Holes in the tape not yet closed.", ["instrument"], registry=REGISTRY)
dropped_batches = Counter(
    "tapewick_dropped_batches", "Batches a push source dropped: the bus was full.", ["source"], registry=REGISTRY
)
source_state = Gauge(
    "tapewick_source_state", "1 for the state a source is in, else 0.", ["source", "state"], registry=REGISTRY
)
http_requests = Counter("tapewick_http_requests", "HTTP answers, by status.", ["status"], registry=REGISTRY)
clients = Gauge("tapewick_ws_clients", "Push connections open.", registry=REGISTRY)
subscriptions = Gauge("tapewick_subscriptions", "Channels subscribed to, over all clients.", registry=REGISTRY)
frames = Counter("tapewick_frames", "Data frames encoded, once for all subscribers.", registry=REGISTRY)
wire_bytes = Counter("tapewick_wire_bytes", "Bytes of live data handed to client connections.", registry=REGISTRY)
conflated = Counter("tapewick_conflated", "Updates slow readers missed for newer ones.", registry=REGISTRY)
slow_closes = Counter("tapewick_slow_closes", "Connections closed with 4008, slow consumer.", registry=REGISTRY)
resumes = Counter("tapewick_resumes", "Resumes asked for, by outcome.", ["recovered"], registry=REGISTRY)
fills = Counter("tapewick_live_fills", "Jumps of the live stream filled from the store.", registry=REGISTRY)


def render() -> bytes:
    """All metrics in the Prometheus text format."""
    return generate_latest(REGISTRY)
