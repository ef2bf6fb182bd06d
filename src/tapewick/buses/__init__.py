"""Implementations of ``protocols.Bus``: in one process, on Redis Streams, NATS JetStream and Kafka."""
