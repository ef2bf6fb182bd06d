"""How many TCP connections one address may have at the gRPC port.

gRPC accepts connections in its own threads, which take a bound on all of them and none per address; and it tells
nobody of a connection that makes no call. So we look at the process's sockets from time to time and shut those beyond
the bound, the newest, which gRPC then sees as a peer that left. In between an address may have more for a moment.
"""

from __future__ import annotations

import os
import socket
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

import structlog

from tapewick import metrics
from tapewick.gateways._address import Addresses

__all__ = ["Connections"]

log = structlog.get_logger()

FOLDERS = (Path("/proc/self/fd"), Path("/dev/fd"))

Peer = tuple[str, int]


class Connections:
    """Those accepted at ``port``; at most ``per_address`` of each that ``addresses`` does not trust as a proxy."""

    def __init__(self, port: int, per_address: int, addresses: Addresses) -> None:
        self._port, self._per_address, self._addresses = port, per_address, addresses
        self._admitted: dict[str, set[Peer]] = {}

    def look(self) -> int:
        """Shut what is too many; how many that were. Blocks: for a thread of its own."""
        folder = next((folder for folder in FOLDERS if folder.is_dir()), None)
        names = [] if folder is None else os.listdir(folder)
        if len(names) <= self._per_address:  # not even all of them are too many
            return 0
        found: defaultdict[str, dict[Peer, socket.socket]] = defaultdict(dict)
        try:
            for name in names:
                if name.isdigit() and (own := self._ours(int(name))) is not None:
                    peer, link = own
                    known = found[self._addresses.of(peer[0], ())].setdefault(peer, link)
                    if known is not link:  # a second descriptor of the same connection
                        link.close()
            return self._shut(found)
        finally:
            for links in found.values():
                for link in links.values():
                    link.close()

    def _ours(self, number: int) -> tuple[Peer, socket.socket] | None:
        """Who is at the other end of a descriptor that is a connection of our port, and a handle of it."""
        try:
            copy = os.dup(number)  # so that it is the same socket in all that follows
        except OSError:
            return None  # it was closed meanwhile
        try:
            link = socket.socket(fileno=copy)
        except OSError:
            os.close(copy)  # a file or a pipe
            return None
        with suppress(OSError, IndexError, TypeError):
            if link.getsockname()[1] == self._port:
                host, port = link.getpeername()[:2]
                if not self._addresses.trusts(host):
                    return (host, port), link
        link.close()
        return None

    def _shut(self, found: dict[str, dict[Peer, socket.socket]]) -> int:
        admitted, count = {}, 0
        for address, links in found.items():
            known = self._admitted.get(address, set()) & links.keys()
            new = [peer for peer in links if peer not in known]
            room = max(0, self._per_address - len(known))
            admitted[address] = known | set(new[:room])
            for peer in new[room:]:
                with suppress(OSError):
                    links[peer].shutdown(socket.SHUT_RDWR)
                    count += 1
            if len(new) > room:
                metrics.limited.labels("connections").inc(len(new) - room)
                log.warning("gRPC connections beyond the bound were shut", address=address, count=len(new) - room)
        self._admitted = admitted
        return count
