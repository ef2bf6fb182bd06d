"""SC2: no key is there before somebody made it; an address that others can reach needs authentication."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.e2e.server import Server
from tests.security.conftest import Cli
from tests.security.rig import INGEST, bearer, locked

COMMON = ("dev-key", "dev", "test", "admin", "changeme", "secret", "password", "default", "tapewick", "x", "null")


async def test_sc02_no_well_known_key_lets_in(tmp_path: Path) -> None:
    async with locked(tmp_path, required=True) as server:
        for guess in COMMON:
            for headers in (bearer(guess), {"x-api-key": guess}, {"x-mbx-apikey": guess}):
                assert (await server.ask("GET", "/v1/instruments", headers=headers)).status_code == 401, guess
                assert (await server.ask("POST", INGEST, headers=headers, content=b"{}")).status_code == 401, guess


@pytest.mark.parametrize(
    "words",
    [
        ("--host", "0.0.0.0"),
        ("--host", "::"),
        ("--host", ""),
        ("--host", "192.0.2.1"),
    ],
)
def test_sc02_an_open_bind_without_authentication_exits_2(cli: Cli, words: tuple[str, ...]) -> None:
    done = cli("serve", "--port", "0", *words)
    assert done.code == 2 and "server.host" in done.err and "server.tokens" in done.err and done.err.count("\n") == 1


@pytest.mark.parametrize("section", ["grpc", "admin"])
def test_sc02_every_port_is_held_to_it(tmp_path: Path, cli: Cli, section: str) -> None:
    (tmp_path / "tapewick.toml").write_text(f'[{section}]\nenabled = true\nhost = "0.0.0.0"\n')
    done = cli("serve", "--port", "0")
    assert done.code == 2 and f"{section}.host" in done.err


@pytest.mark.parametrize("local", [True, False])
def test_sc02_allowed_explicitly_it_listens_but_administers_at_most_for_this_machine(
    tmp_path: Path, local: bool
) -> None:
    words = ("demo", "--no-open", "--host", "0.0.0.0", "--port", "0", "--data", str(tmp_path / "d"), "--no-config")
    env = {"TAPEWICK_SERVER__LOCAL_ADMIN": "true"} if local else {}
    with Server(*words, TAPEWICK_SERVER__ALLOW_UNAUTHENTICATED="true", **env) as server:
        port = int(server.ready().rpartition(":")[2])
        asked = b"POST /v1/repair/sim:BTCUSDT HTTP/1.1\r\nHost: %b\r\nContent-Length: 0\r\nConnection: close\r\n%b\r\n"

        def status(host: bytes, more: bytes = b"") -> int:
            with socket.create_connection(("127.0.0.1", port), 30) as link:
                link.sendall(asked % (host, more))
                return int(link.makefile("rb").readline().split()[1])

        server.wait_for(lambda: status(b"127.0.0.1:%d" % port) == (202 if local else 401))
        assert status(b"127.0.0.1:%d" % port, b"X-Forwarded-For: 203.0.113.9\r\n") == 401, "somebody behind a proxy"
        assert status(b"rebound.example") == 401, "a page whose name was made to point at this machine"
        assert server.stop() == 143
