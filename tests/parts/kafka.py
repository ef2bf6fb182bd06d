"""A real Kafka broker (KRaft, one node) per test session, and ones of a test's own to be killed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.e2e.browser import part
from tests.parts.child import Child, free_ports, installed
from tests.parts.told import told as tell

__all__ = ["KafkaServer", "kafka_server", "own_kafka"]

JARS = Path(__file__).resolve().parents[2] / ".cache" / "kafka"
PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}{secure}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}{secure}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SECURE:SASL_SSL
log.dirs={home}/log-data
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
"""


def jars() -> Path:
    """The broker's jars; without them the test is skipped, or fails where CI is set."""
    there = str(JARS / "lib") if (JARS / "recipe").is_file() else None
    return Path(part("Kafka", there, "python scripts/kafka.py (needs maven and openjdk-17-jre-headless)"))


class KafkaServer(Child):
    """Default durability. ``secure``: a port where TLS and a password are demanded; ``options``: more lines of
    ``server.properties``."""

    title = "Kafka"

    def __init__(self, *, secure: int = 0, options: Sequence[str] = ()) -> None:
        super().__init__()
        self._options = options
        self._secure = f",SECURE://127.0.0.1:{secure}" if secure else ""
        self._java = [
            installed("java", self.title),
            "-Xmx400m",
            "-Xms64m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
        ]
        self._java += ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", f"{jars()}/*"]
        self.port = self._controller = 0
        self._id = self._answered = ""

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        for _ in range(3):
            self._configure()
            self.run([*self._java, "kafka.Kafka", str(self.home / "server.properties")])
            if self.until(self._answers):
                break
            assert "in use" in self.log(), self.log()
            self.port = 0
        assert self._answered == self._id, f"another server, {self._answered!r}, answers on {self.url}"
        tell(f"Kafka 3.9.1, pid {self.pid}, port {self.port}")

    def _configure(self) -> None:
        fresh = not self._id
        if not self.port:
            self.port, self._controller = free_ports(2)
        text = PROPERTIES.format(port=self.port, controller=self._controller, home=self.home, secure=self._secure)
        (self.home / "server.properties").write_text(text + "\n".join(self._options) + "\n")
        if fresh:
            self._id = self._tool("random-uuid").split()[-1]
            self._tool("format", "-t", self._id, "-c", str(self.home / "server.properties"))

    def _tool(self, *words: str) -> str:
        done = subprocess.run(
            [*self._java, "kafka.tools.StorageTool", *words], capture_output=True, text=True, env=os.environ
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def _answers(self) -> bool:
        """Whether a cluster answers; which one is kept."""
        self._answered = self._cluster()
        return bool(self._answered)

    def _cluster(self) -> str:
        """The id of the cluster that answers, empty while none does."""
        admin = AdminClient({"bootstrap.servers": self.url, "log_level": 0})
        try:
            told = admin.list_topics(timeout=2)
        except KafkaException:
            return ""
        return str(told.cluster_id) if told.brokers else ""


@pytest.fixture(scope="session")
def kafka_server() -> Iterator[KafkaServer]:
    """For everything but its end."""
    yield from KafkaServer().running()  # type: ignore[misc]


@pytest.fixture
def own_kafka() -> Iterator[KafkaServer]:
    """One of the test's own, to be killed and restarted on the same data."""
    yield from KafkaServer().running()  # type: ignore[misc]
