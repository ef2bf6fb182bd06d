"""A real nginx in front of servers of ours, with a configuration, folder, ports and process id of its own."""

from __future__ import annotations

import re
import socket
import subprocess
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from tests.parts.child import Child, free_ports, installed

__all__ = ["NginxServer"]

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "behind-nginx.md"
ALONE = """\
daemon off;
pid {home}/pid;
error_log {home}/log warn;
worker_processes 1;
worker_rlimit_nofile 16384;
"""
ACCESS = """\
    log_format upstream "$upstream_addr $status $request";
    access_log access upstream;
"""
FOLDERS = "".join(
    f"    {name}_temp_path temp-{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
)


class NginxServer(Child):
    """Balances over ``gateways``, pairs of host:port for HTTP and for gRPC, by the configuration of the guide.

    ``url`` is where REST, WebSocket and server-sent events are, ``grpc`` where gRPC is.
    """

    title = "nginx"

    def __init__(self, gateways: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self._gateways = gateways
        self.port = self.grpc_port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def grpc(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"

    def start(self) -> None:
        """Start on ports of the system's choice; wait until the process that was started listens."""
        binary = installed("nginx", self.title)
        for _ in range(3):
            if not self.port:
                self.port, self.grpc_port = free_ports(2)
            (self.home / "nginx.conf").write_text(self._configuration())
            self.run([binary, "-p", str(self.home), "-e", str(self.home / "log"), "-c", str(self.home / "nginx.conf")])
            if self.until(self._listens):
                break
            assert "in use" in self.log(), self.log()
            self.port = 0
        told = subprocess.run([binary, "-v"], capture_output=True, text=True).stderr
        print(f"nginx {told.rpartition('/')[2].strip()}, pid {self.pid}, port {self.port}")  # noqa: T201

    def answered(self) -> Counter[str]:
        """How many requests and connections each gateway had, by host:port; open ones do not count yet."""
        lines = (self.home / "access").read_text().splitlines()
        return Counter(address for line in lines for address in re.findall(r"[\d.]+:\d+(?=,? )", line))

    def _configuration(self) -> str:
        """The guide's ``http`` block with our addresses in the place of its own."""
        found = re.search(r"```nginx\n(.*?)```", GUIDE.read_text(), re.DOTALL)
        assert found, f"{GUIDE.name} shows no configuration"
        text = found[1]
        for upstream, at in (("tapewick", 0), ("tapewick_grpc", 1)):
            servers = "".join(f"        server {pair[at]} \\1;\n" for pair in self._gateways)
            text, count = re.subn(rf"(?<=upstream {upstream} {{\n)(?:        server \S+ ([^;]*);\n)+", servers, text)
            assert count == 1, f"{GUIDE.name}: no upstream {upstream}"
        for guides, ours in (("80", self.port), ("50051 http2", f"{self.grpc_port} http2")):
            assert text.count(f"listen {guides};") == 1, guides
            text = text.replace(f"listen {guides};", f"listen 127.0.0.1:{ours};")
        text = text.replace("http {\n", "http {\n" + ACCESS + FOLDERS, 1)
        return ALONE.format(home=self.home) + text

    def _listens(self) -> bool:
        told = self.home / "pid"
        if not told.is_file() or told.read_text().strip() != str(self.pid):
            return False
        for port in (self.port, self.grpc_port):
            with closing(socket.socket()) as probe:
                if probe.connect_ex(("127.0.0.1", port)):
                    return False
        return True
