"""A real Redis per test session, and durable ones to be killed."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.parts.child import Child, free_ports, installed
from tests.parts.told import told as tell

__all__ = ["RedisServer", "durable_redis", "redis_server"]


class RedisServer(Child):
    """``durable``: every write is on the disk before it is answered. ``options``: more of its own flags."""

    title = "Redis"

    def __init__(self, *, durable: bool = False, password: str = "", options: tuple[str, ...] = ()) -> None:
        super().__init__()
        self._password = password
        self.port = 0
        synced = ["--appendonly", "yes", "--appendfsync", "always"] if durable else ["--appendonly", "no"]
        self._options = [*synced, *(("--requirepass", password) if password else ()), *options]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        for _ in range(3):
            self.port = self.port or free_ports(1)[0]
            words = [installed("redis", self.title), "--port", str(self.port), "--bind", "127.0.0.1"]
            self.run([*words, "--dir", str(self.home), "--save", "", *self._options])
            if self.until(lambda: "process_id" in self._told()):
                break
            assert "in use" in self.log(), self.log()
            self.port = 0
        told = self._told()
        assert f"process_id:{self.pid}\r" in told and f"tcp_port:{self.port}\r" in told, f"another server: {told}"
        tell(f"Redis {told.partition('redis_version:')[2].split()[0]}, pid {self.pid}, port {self.port}")

    def ask(self, *words: str) -> str:
        """One command by a connection of its own; the raw answer."""
        with socket.create_connection(("127.0.0.1", self.port), 10) as link:
            if self._password:
                assert _asked(link, "AUTH", self._password).startswith("+OK")
            return _asked(link, *words)

    def _told(self) -> str:
        try:
            answer = self.ask("INFO", "server")
        except OSError:
            return ""
        return answer


def _asked(link: socket.socket, *words: str) -> str:
    parts = (b"$%d\r\n%s\r\n" % (len(word), word.encode()) for word in words)
    link.sendall(b"*%d\r\n" % len(words) + b"".join(parts))
    answer = b""
    while not answer.endswith(b"\r\n"):
        answer += link.recv(65536)
    return answer.decode(errors="replace")


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """Fast and forgetful: for everything but durability."""
    yield from RedisServer().running()  # type: ignore[misc]


@pytest.fixture
def durable_redis() -> Iterator[RedisServer]:
    """One of the test's own that syncs every write, to be killed and restarted."""
    yield from RedisServer(durable=True).running()  # type: ignore[misc]
