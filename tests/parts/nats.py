"""A real NATS server with JetStream per test session, and ones of a test's own to be killed."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from uuid import uuid4

import pytest

from tests.parts.child import Child, installed
from tests.parts.told import told as tell

__all__ = ["NatsServer", "nats_server", "own_nats"]


class NatsServer(Child):
    """File store in its own folder; the server chooses its port the first time. ``options``: more of its own flags."""

    title = "NATS"

    def __init__(self, *, options: tuple[str, ...] = ("-js",)) -> None:
        super().__init__()
        self.port = 0
        self._options = options

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        name = uuid4().hex
        port = str(self.port or -1)
        words = [installed("nats", self.title), "-a", "127.0.0.1", "-p", port, "--ports_file_dir", str(self.home)]
        settings = self.home / "conf"
        # Streams reserve their bound, and every test has its own: by default they may reserve what the disk has left.
        settings.write_text("jetstream { max_file_store: 8TB }\n" if "-js" in self._options else "")
        self.run([*words, "-n", name, "-c", str(settings), "-sd", str(self.home / "js"), *self._options])
        told = self.home / f"nats-server_{self.pid}.ports"
        assert self.until(lambda: told.is_file() and told.read_text().endswith("}")), self.log()
        self.port = int(json.loads(told.read_text())["nats"][0].rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", self.port), 10) as link:
            info = json.loads(re.sub("^INFO ", "", link.makefile("r").readline()))
        assert info["server_name"] == name, f"another server answers: {info}"
        assert self.until(self._restored), self.log()
        tell(f"NATS {info['version']}, pid {self.pid}, port {self.port}")

    def _restored(self) -> bool:
        return "Server is ready" in self.log()


@pytest.fixture(scope="session")
def nats_server() -> Iterator[NatsServer]:
    """For everything but its end."""
    yield from NatsServer().running()  # type: ignore[misc]


@pytest.fixture
def own_nats() -> Iterator[NatsServer]:
    """One of the test's own, to be killed and restarted on the same data."""
    yield from NatsServer().running()  # type: ignore[misc]
