"""The one registry of counters, gauges and latency histograms; ``/metrics`` prints it.

Everything is counted per batch, never per trade. Names are ``tapewick_*``; the reference page
is made of this list (``scripts/docs.py``), and a test holds the two together.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = [
    "CONTENT_TYPE",
    "REGISTRY",
    "bus_discarded",
    "bus_emptied",
    "bus_failures",
    "bus_full",
    "bus_lag",
    "bus_lost",
    "bus_received",
    "bus_received_bytes",
    "bus_refused",
    "bus_sent",
    "bus_sent_bytes",
    "chain_requests",
    "clients",
    "commit_seconds",
    "commits",
    "conflated",
    "dropped_batches",
    "duplicates",
    "fills",
    "fenced",
    "frames",
    "gaps_open",
    "http_requests",
    "ingest_trades",
    "leases_held",
    "leases_lost",
    "partitions_owned",
    "partitions_unowned",
    "limited",
    "quarantined",
    "queue_bytes",
    "record_dropped_frames",
    "record_frames",
    "render",
    "replica_lag",
    "resnapshots",
    "resumes",
    "scan_cursor",
    "scan_differences",
    "scan_events",
    "scan_fenced",
    "scan_head",
    "scan_reorgs",
    "slow_closes",
    "source_state",
    "spool_bytes",
    "spool_drained",
    "store_rewound",
    "subscriptions",
    "trades",
    "venue_circuit",
    "venue_requests",
    "venue_weight",
    "verify_compared",
    "verify_equality",
    "verify_mismatches",
    "watch_queue",
    "wire_bytes",
]

Q = TypeVar("Q")

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
replica_lag = Gauge(
    "tapewick_store_replica_lag_seconds",
    "How far the server reads go to is behind the one that is written; NaN while it does not answer.",
    registry=REGISTRY,
)
store_rewound = Counter(
    "tapewick_store_rewound", "Tapes that the database had lost acknowledged commits of.", registry=REGISTRY
)
gaps_open = Gauge("tapewick_gaps_open", "Holes in the tape not yet closed.", ["instrument", "state"], registry=REGISTRY)
dropped_batches = Counter(
    "tapewick_dropped_batches", "Batches a push source dropped: the bus was full.", ["source"], registry=REGISTRY
)
source_state = Gauge(
    "tapewick_source_state", "1 for the state a source is in, else 0.", ["source", "state"], registry=REGISTRY
)
venue_requests = Counter(
    "tapewick_venue_requests", "REST requests to venues, by outcome.", ["host", "outcome"], registry=REGISTRY
)
venue_weight = Gauge(
    "tapewick_venue_weight_used", "Request weight used at a venue's host this minute.", ["host"], registry=REGISTRY
)
venue_circuit = Gauge(
    "tapewick_venue_circuit",
    "1 for the state requests to a venue are in, else 0.",
    ["host", "state"],
    registry=REGISTRY,
)
chain_requests = Counter(
    "tapewick_chain_requests", "JSON-RPC requests to nodes, by outcome.", ["host", "outcome"], registry=REGISTRY
)
scan_cursor = Gauge("tapewick_scan_block", "The last block a scanner took in.", ["component"], registry=REGISTRY)
scan_head = Gauge(
    "tapewick_scan_head_block", "The newest block a scanner's node knows.", ["component"], registry=REGISTRY
)
scan_events = Counter(
    "tapewick_scan_events",
    "Logs of watched contracts taken in; raw: it matched, but did not decode.",
    ["component", "kind"],
    registry=REGISTRY,
)
scan_reorgs = Counter(
    "tapewick_scan_orphaned_blocks", "Blocks taken in that the chain replaced.", ["component"], registry=REGISTRY
)
scan_fenced = Counter(
    "tapewick_scan_fenced", "Steps the store refused: another scanner had taken over.", ["component"], registry=REGISTRY
)
scan_differences = Counter(
    "tapewick_scan_differences",
    "Logs that a second look at a block found, or missed, that the first had not.",
    ["component"],
    registry=REGISTRY,
)
verify_compared = Counter(
    "tapewick_verify_compared", "Candles compared with the venue's own.", ["instrument", "tf"], registry=REGISTRY
)
verify_mismatches = Counter(
    "tapewick_verify_mismatches",
    "Candles that differ from the venue's own, or that one side lacks.",
    ["instrument", "tf"],
    registry=REGISTRY,
)
verify_equality = Gauge(
    "tapewick_verify_equal_ratio",
    "Share of the candles last compared that equal the venue's own.",
    ["instrument", "tf"],
    registry=REGISTRY,
)
record_frames = Counter("tapewick_record_frames", "Raw frames written to recordings.", ["venue"], registry=REGISTRY)
record_dropped_frames = Counter(
    "tapewick_record_dropped_frames",
    "Raw frames left out of recordings: the disk lagged.",
    ["venue"],
    registry=REGISTRY,
)
http_requests = Counter("tapewick_http_requests", "HTTP answers, by status.", ["status"], registry=REGISTRY)
limited = Counter(
    "tapewick_limited", "Requests and connections refused or cut by a limit, by which.", ["limit"], registry=REGISTRY
)
clients = Gauge("tapewick_ws_clients", "Push connections open.", registry=REGISTRY)
subscriptions = Gauge("tapewick_subscriptions", "Channels subscribed to, over all clients.", registry=REGISTRY)
frames = Counter("tapewick_frames", "Data frames encoded, once for all subscribers.", registry=REGISTRY)
wire_bytes = Counter("tapewick_wire_bytes", "Bytes of live data handed to client connections.", registry=REGISTRY)
conflated = Counter("tapewick_conflated", "Updates slow readers missed for newer ones.", registry=REGISTRY)
slow_closes = Counter("tapewick_slow_closes", "Connections closed with 4008, slow consumer.", registry=REGISTRY)
resumes = Counter("tapewick_resumes", "Resumes asked for, by outcome.", ["recovered"], registry=REGISTRY)
resnapshots = Counter(
    "tapewick_resnapshots", "Readers that fell behind a book or state and get it whole again.", registry=REGISTRY
)
fills = Counter("tapewick_live_fills", "Jumps of the live stream filled from the store.", registry=REGISTRY)
ingest_trades = Counter(
    "tapewick_ingest_trades", "Trades handed in at /v1/ingest/trades, by verdict.", ["verdict"], registry=REGISTRY
)
partitions_owned = Gauge(
    "tapewick_partitions_owned", "Partitions of instruments whose tapes this engine writes.", registry=REGISTRY
)
partitions_unowned = Gauge(
    "tapewick_partitions_unowned", "Partitions no engine has, as a gateway sees it.", registry=REGISTRY
)
fenced = Counter("tapewick_fenced", "Tapes given up: another engine had taken them over.", registry=REGISTRY)
leases_held = Gauge("tapewick_leases_held", "Names this process holds: its partitions and tasks.", registry=REGISTRY)
leases_lost = Counter(
    "tapewick_leases_lost", "Leases that ended before they were given back: the store was late.", registry=REGISTRY
)
spool_bytes = Gauge("tapewick_spool_bytes", "Bytes of trades that wait on disk for the store.", registry=REGISTRY)
spool_drained = Counter("tapewick_spool_drained", "Trades brought from disk to the store.", registry=REGISTRY)
bus_sent = Counter("tapewick_bus_sent", "Messages the bus confirmed.", ["topic"], registry=REGISTRY)
bus_sent_bytes = Counter("tapewick_bus_sent_bytes", "Bytes the bus confirmed.", ["topic"], registry=REGISTRY)
bus_received = Counter("tapewick_bus_received", "Messages read off the bus.", ["topic"], registry=REGISTRY)
bus_received_bytes = Counter("tapewick_bus_received_bytes", "Bytes read off the bus.", ["topic"], registry=REGISTRY)
bus_lag = Gauge(
    "tapewick_bus_lag", "Messages on the bus that a group has not acknowledged.", ["topic", "group"], registry=REGISTRY
)
bus_lost = Counter("tapewick_bus_lost", "Messages that were gone before they were read.", ["topic"], registry=REGISTRY)
bus_discarded = Counter(
    "tapewick_bus_discarded",
    "Own messages the bus dropped before its groups had acknowledged them.",
    ["topic"],
    registry=REGISTRY,
)
bus_full = Counter(
    "tapewick_bus_full", "Messages not sent: too much of the topic was under way.", ["topic"], registry=REGISTRY
)
bus_refused = Counter("tapewick_bus_refused", "Messages the bus turned down.", ["topic"], registry=REGISTRY)
bus_failures = Counter("tapewick_bus_failures", "Failed calls to the message server.", ["bus"], registry=REGISTRY)
bus_emptied = Counter("tapewick_bus_emptied", "Times the bus lost all it kept.", ["bus"], registry=REGISTRY)
queue_bytes = Gauge(
    "tapewick_queue_bytes", "Bytes that wait in a queue of this process; each is bounded.", ["queue"], registry=REGISTRY
)


def watch_queue(name: str, queue: Q, size: Callable[[Q], int]) -> None:
    """Tell by ``name`` how many bytes wait in ``queue`` (which can be weakly referred to) while that lives."""
    found = weakref.ref(queue)

    def waiting() -> float:
        there = found()
        return 0.0 if there is None else float(size(there))

    queue_bytes.labels(name).set_function(waiting)


def render() -> bytes:
    """All metrics in the Prometheus text format."""
    return generate_latest(REGISTRY)
