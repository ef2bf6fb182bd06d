"""NATS JetStream: a stream per topic, a subject per partition. Floors are the last messages of a stream of their own.

A reader is an ephemeral pull consumer without acknowledgements that starts where it is told to: whoever
takes a partition over needs no time-out to pass. A message sent again has the same ``Nats-Msg-Id``; after the
server's window for such repetitions, readers know it by its number.
"""

from __future__ import annotations

import ssl
from typing import Any

from tapewick.buses._broker import NO_TLS, Tls
from tapewick.buses._nats_broker import NatsBroker
from tapewick.buses._nats_driver import StorageType, StreamConfig
from tapewick.buses._network import NetworkBus
from tapewick.clock import Clock
from tapewick.errors import ConfigError

__all__ = ["NatsBus"]


class NatsBus(NetworkBus):
    """A bus on the NATS servers at ``url`` (``nats|tls://[user:password@]host:port``, several separated by commas).

    ``name`` begins all its streams. Each keeps ``stream_bytes`` and ``max_age`` seconds at most, then discards the
    oldest; a repetition within ``dedupe`` seconds is not stored. ``credentials``: path of a ``.creds`` file.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str = "tapewick",
        partitions: int = 16,
        max_bytes: int = 16 << 20,
        stream_bytes: int = 1 << 30,
        max_age: float = 86_400,
        dedupe: float = 120,
        replicas: int = 1,
        credentials: str = "",
        tls: Tls = NO_TLS,
        clock: Clock | None = None,
    ) -> None:
        limits = StreamConfig(
            max_bytes=stream_bytes,
            max_age=max_age,
            duplicate_window=min(dedupe, max_age),
            num_replicas=replicas,
            storage=StorageType.FILE,
        )
        broker = NatsBroker(
            url, name=name, partitions=partitions, limits=limits, options=_options(url, name, credentials, tls)
        )
        super().__init__(broker, partitions=partitions, max_bytes=max_bytes, clock=clock)


def _options(url: str, name: str, credentials: str, tls: Tls) -> dict[str, Any]:
    """What the driver needs besides addresses. Raises ``ConfigError`` for files it cannot use."""
    options: dict[str, Any] = {"name": name}
    if credentials:
        options["user_credentials"] = credentials
    if url.startswith("tls://"):
        try:
            context = ssl.create_default_context(cafile=tls.ca or None)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if tls.cert:
                context.load_cert_chain(tls.cert, tls.key or None)
        except OSError as error:
            raise ConfigError(f"nats.tls_ca, nats.tls_cert or nats.tls_key cannot be used: {error}") from error
        options["tls"] = context
    elif any(tls):
        raise ConfigError("nats.tls_* are set, but nats.url does not begin with tls://")
    return options
