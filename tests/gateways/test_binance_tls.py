"""The port with a certificate: https and wss, for clients that know nothing else."""

from __future__ import annotations

import socket
import ssl
import subprocess
from pathlib import Path

import httpx2
import pytest

from tapewick.errors import ConfigError
from tapewick.gateways.http import HttpGateway
from tests.gateways.rig import Rig, peer, running


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A certificate for loopback that signs itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = str(folder / "cert.pem"), str(folder / "key.pem")
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", key, "-out", cert]
    subprocess.run([*command, *names], check=True, capture_output=True)
    return cert, key


async def test_rest_and_sockets_over_tls(tmp_path: Path, pair: tuple[str, str]) -> None:
    cert, key = pair
    trust = ssl.create_default_context(cafile=cert)
    async with running(tmp_path / "data", tls_cert=cert, tls_key=key) as rig:
        assert rig.gateway.url.startswith("https://127.0.0.1:")
        async with httpx2.AsyncClient(base_url=rig.gateway.url, verify=trust) as client:
            assert (await client.get("/api/v3/ping")).json() == {}
            assert (await client.get("/health/live")).status_code == 200
        url = rig.gateway.url.replace("https", "wss", 1)
        async with peer(f"{url}/ws/btcusdt@trade", ssl_context=trust) as one, peer(f"{url}/v1/ws", ssl_context=trust):
            one.send({"method": "LIST_SUBSCRIPTIONS", "id": 1})
            await one.until(lambda p: p.frames)
            await rig.tell(1, 500)
            await one.until(lambda p: [f for f in p.frames if f.get("t") == 500])
            assert [f["t"] for f in one.frames[1:]] == list(range(1, 501))


async def test_old_tls_and_plain_text_are_refused(tmp_path: Path, pair: tuple[str, str]) -> None:
    async with running(tmp_path / "data", tls_cert=pair[0], tls_key=pair[1]) as rig:
        old = ssl.create_default_context(cafile=pair[0])
        with pytest.warns(DeprecationWarning):
            old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_1
        async with httpx2.AsyncClient(verify=old) as client:
            with pytest.raises(httpx2.TransportError):
                await client.get(rig.gateway.url)
        async with httpx2.AsyncClient() as client:
            with pytest.raises(httpx2.TransportError):
                await client.get(rig.gateway.url.replace("https", "http", 1))


@pytest.mark.parametrize(("cert", "key"), [("cert", ""), ("", "key"), ("missing", "key"), ("key", "key")])
async def test_what_is_wrong_with_a_certificate_is_explained(
    rig: Rig, pair: tuple[str, str], cert: str, key: str
) -> None:
    files = {"cert": pair[0], "key": pair[1], "missing": "/no/such/file.pem", "": ""}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(ConfigError, match="tls_cert"):
        async with HttpGateway(rig.market, port=port, tls_cert=files[cert], tls_key=files[key]):
            raise AssertionError
    async with HttpGateway(rig.market, port=port):
        pass  # the port was given back
