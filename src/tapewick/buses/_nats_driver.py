"""The driver of NATS: the only file that imports it, and what its errors mean."""

from __future__ import annotations

from tapewick.errors import BusError, BusRefused, MissingExtra

try:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.errors import AuthorizationError, MaxPayloadError
    from nats.errors import Error as NatsError
    from nats.js import JetStreamContext
    from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, PubAck, StorageType, StreamConfig
    from nats.js.errors import APIError, NoStreamResponseError, NotFoundError, ServiceUnavailableError
except ImportError as error:
    raise MissingExtra("the NATS bus (setting bus.kind)", "nats") from error

__all__ = [
    "AckPolicy",
    "APIError",
    "AuthorizationError",
    "Client",
    "ConsumerConfig",
    "DeliverPolicy",
    "JetStreamContext",
    "MaxPayloadError",
    "Msg",
    "NatsError",
    "NoStreamResponseError",
    "NotFoundError",
    "PubAck",
    "ServiceUnavailableError",
    "StorageType",
    "StreamConfig",
    "failure",
]

NO_JETSTREAM = (10039, 10076)  # error codes of servers or accounts without JetStream


def failure(error: Exception, what: str) -> BusError:
    """The driver's error as ours, with what to do."""
    text = str(error) or type(error).__name__
    if isinstance(error, AuthorizationError) or "uthorization" in text or "ermissions" in text:
        return BusRefused(
            f"NATS refuses {what}: {text}; check the user in nats.url or nats.credentials, and its rights"
        )
    if isinstance(error, MaxPayloadError):
        return BusRefused(f"NATS refuses {what}: the message is larger than the server's max_payload; raise that")
    if isinstance(error, APIError):
        if error.err_code in NO_JETSTREAM:
            return BusRefused(f"NATS has no JetStream: start nats-server with -js and a store folder ({text})")
        return BusError(f"NATS refuses {what}: {error.description or text}")
    return BusError(f"NATS does not answer while {what} ({text}); is it running at nats.url, with JetStream?")
