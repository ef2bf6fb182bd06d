"""Kafka's driver: the only file that imports it, what its errors mean, and which of them pass by themselves."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from tapewick.errors import BusError, BusRefused, MissingExtra

try:
    from confluent_kafka import (
        Consumer,
        KafkaError,
        KafkaException,
        Message,
        Producer,
        TopicPartition,
    )
    from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec
except ImportError as error:
    raise MissingExtra("the Kafka bus (setting bus.kind)", "kafka") from error

__all__ = [
    "ANSWER",
    "AdminClient",
    "Consumer",
    "KafkaError",
    "KafkaException",
    "Message",
    "NewTopic",
    "OffsetSpec",
    "Producer",
    "TopicPartition",
    "elected",
    "failure",
    "quiet",
]

ANSWER = 5.0  # seconds an answer may take
REFUSALS = (
    KafkaError._AUTHENTICATION,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
)

ELECTING = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError._NOENT,  # "no leaders found": the topic was made a moment ago
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
)

T = TypeVar("T")

quiet = logging.getLogger("tapewick.kafka")  # what the driver has to say reaches us as errors
quiet.addHandler(logging.NullHandler())
quiet.propagate = False


def failure(error: KafkaError | None, what: str) -> BusError:
    """The driver's error as ours, with what to do."""
    text = "no answer" if error is None else error.str()
    code = None if error is None else error.code()
    if code in REFUSALS:
        return BusRefused(
            f"Kafka refuses {what}: {text}; check kafka.username and kafka.password, and what the user may do"
        )
    if code == KafkaError.MSG_SIZE_TOO_LARGE:
        return BusRefused(f"Kafka refuses {what}: a message is larger than the topic's max.message.bytes; raise that")
    return BusError(f"Kafka does not answer while {what} ({text}); is it running at kafka.brokers?")


def elected(work: Callable[[], T]) -> T:
    """Do ``work`` until there is who can answer it: leaders and coordinators take a moment to take over when a topic
    was made, or a broker came back."""
    deadline = time.monotonic() + ANSWER
    while True:
        try:
            return work()
        except KafkaException as error:
            if error.args[0].code() not in ELECTING or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
