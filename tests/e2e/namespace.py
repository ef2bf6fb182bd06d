"""A network namespace in which only loopback is up: what runs there can reach nothing else, and each try is counted."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["Namespace", "way_in"]

HOLD = """
import fcntl, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sH14x", b"lo", 1 | 64))  # SIOCSIFFLAGS: up and running
print("up", flush=True)
sys.stdin.read()
"""
FETCH = """
import sys, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
sys.stdout.buffer.write(opener.open(sys.argv[1], timeout=30).read())
"""
LISTENING = "0A"


def way_in() -> tuple[str, ...] | None:
    """What `unshare` needs here to make such a namespace; None when this machine does not let us."""
    for options in ((), ("--user", "--map-root-user")):
        try:
            if not subprocess.run(["unshare", *options, "--net", "true"], capture_output=True).returncode:
                return options
        except FileNotFoundError:
            return None
    return None


class Namespace:
    """Exists while the context is open."""

    def __init__(self, options: tuple[str, ...]) -> None:
        self._options = options

    def __enter__(self) -> Self:
        command = ["unshare", *self._options, "--net", sys.executable, "-c", HOLD]
        self._holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._holder.stdout is not None and self._holder.stdout.readline() == "up\n"
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        self._holder.communicate()

    def command(self, *words: str | Path) -> list[str]:
        """``words`` as a command that runs inside."""
        same = ("--user", "--preserve-credentials") if self._options else ()
        return ["nsenter", f"--target={self._holder.pid}", *same, "--net", *map(str, words)]

    def get(self, url: str) -> bytes:
        """The body of a GET from inside."""
        command = self.command(sys.executable, "-c", FETCH, url)
        done = subprocess.run(command, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def listening(self) -> list[tuple[str, int]]:
        """Address and port of every TCP socket that accepts connections inside."""
        found = []
        for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
            for line in self._table(table)[1:]:
                where, state = line.split()[1], line.split()[3]
                if state == LISTENING:
                    address, port = where.split(":")
                    words = [int(address[i : i + 8], 16) for i in range(0, len(address), 8)]
                    found.append((socket.inet_ntop(family, struct.pack(f"={len(words)}I", *words)), int(port, 16)))
        return sorted(found)

    def strayed(self) -> int:
        """How many packets were meant for somewhere that is not loopback, name look-ups included."""
        names, values = (line.split() for line in self._table("snmp") if line.startswith("Ip:"))
        (six,) = (line.split()[1] for line in self._table("snmp6") if line.startswith("Ip6OutNoRoutes"))
        return int(dict(zip(names, values, strict=True))["OutNoRoutes"]) + int(six)

    def _table(self, name: str) -> list[str]:
        return Path(f"/proc/{self._holder.pid}/net/{name}").read_text().splitlines()
