"""Kafka: a topic per topic with the partitions engines share, floors as the committed offsets of a consumer group.

Partitions are assigned, never balanced: the lease in the store says who reads what, so no member's coming or going
stops another. The driver blocks, so each reader and the sender work in threads of their own.
"""

from __future__ import annotations

from collections.abc import Sequence

from tapewick.buses._broker import NO_TLS, Tls
from tapewick.buses._kafka_broker import KafkaBroker
from tapewick.buses._network import NetworkBus
from tapewick.clock import Clock
from tapewick.errors import ConfigError

__all__ = ["KafkaBus"]


class KafkaBus(NetworkBus):
    """A bus on the Kafka cluster that ``brokers`` (``host:port``) belong to.

    ``name`` begins all its topics and groups. New topics get ``replication`` copies and keep messages for ``retention``
    seconds. With ``username``, SASL by ``mechanism``; with ``encrypt``, TLS.
    """

    def __init__(
        self,
        brokers: Sequence[str],
        *,
        name: str = "tapewick",
        partitions: int = 16,
        max_bytes: int = 16 << 20,
        replication: int = 1,
        retention: float = 86_400,
        username: str = "",
        password: str = "",
        mechanism: str = "SCRAM-SHA-512",
        encrypt: bool = False,
        tls: Tls = NO_TLS,
        clock: Clock | None = None,
    ) -> None:
        if any(tls) and not encrypt:
            raise ConfigError("kafka.tls_ca, kafka.tls_cert or kafka.tls_key are set, but kafka.tls is not")
        security = {"security.protocol": ("SASL_" if username else "") + ("SSL" if encrypt else "PLAINTEXT")}
        if username:
            security |= {"sasl.mechanism": mechanism, "sasl.username": username, "sasl.password": password}
        names = {"ssl.ca.location": tls.ca, "ssl.certificate.location": tls.cert, "ssl.key.location": tls.key}
        security |= {key: value for key, value in names.items() if value}
        broker = KafkaBroker(
            {"bootstrap.servers": ",".join(brokers), "client.id": name, **security},
            name=name,
            partitions=partitions,
            replication=replication,
            retention=retention,
            max_bytes=max_bytes,
        )
        super().__init__(broker, partitions=partitions, max_bytes=max_bytes, clock=clock)
