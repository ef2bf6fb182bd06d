"""Machines of one network, as far as processes can tell: network namespaces on a bridge of their own."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

__all__ = ["Machine", "Network", "permitted"]

ROOM = "198.18"  # reserved for tests of networks, so nobody's own


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")


def permitted() -> str:
    """Why no network can be made here; empty where one can."""
    try:
        with Network(1) as network:
            network.machines[0].check()
    except (OSError, subprocess.CalledProcessError) as error:
        return str(error)
    return ""


class Machine:
    """One namespace. ``address`` is its own on the bridge; its loopback is nobody else's."""

    def __init__(self, name: str, address: str) -> None:
        self.name, self.address = name, address

    @property
    def within(self) -> list[str]:
        """What to put before a command that shall run there."""
        return ["nsenter", f"--net=/run/netns/{self.name}"]

    def check(self) -> None:
        subprocess.run([*self.within, "true"], capture_output=True, check=True)


class Network:
    """``count`` machines while the context is open. ``host`` is our own address among them."""

    def __init__(self, count: int) -> None:
        mark = uuid4().hex[:6]
        room = f"{ROOM}.{int(mark, 16) % 250}"
        self._bridge, self.host = f"tw{mark}", f"{room}.1"
        self.machines = [Machine(f"tw{mark}-{number}", f"{room}.{number + 2}") for number in range(count)]
        self._mark = mark

    def __enter__(self) -> Self:
        try:
            _ip("link", "add", self._bridge, "type", "bridge")
            _ip("address", "add", f"{self.host}/24", "dev", self._bridge)
            _ip("link", "set", self._bridge, "up")
            for number, machine in enumerate(self.machines):
                self._join(number, machine)
        except OSError:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for machine in self.machines:
            if Path(f"/run/netns/{machine.name}").exists():
                _ip("netns", "delete", machine.name)
        if Path(f"/sys/class/net/{self._bridge}").exists():
            _ip("link", "delete", self._bridge)

    def _join(self, number: int, machine: Machine) -> None:
        here, there = f"h{self._mark}{number}", f"n{self._mark}{number}"
        _ip("netns", "add", machine.name)
        _ip("link", "add", here, "type", "veth", "peer", "name", there)
        _ip("link", "set", here, "master", self._bridge, "up")
        _ip("link", "set", there, "netns", machine.name)
        _ip("-n", machine.name, "address", "add", f"{machine.address}/24", "dev", there)
        _ip("-n", machine.name, "link", "set", there, "up")
        _ip("-n", machine.name, "link", "set", "lo", "up")
