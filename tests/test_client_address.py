"""What a client says of an address, a token or a certificate that will not do, and what to try next."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import grpc
import pytest

from tapewick.client import Client
from tapewick.errors import ConfigError, SourceError
from tests.conformance.tls import certificate
from tests.gateways.rig import BTC, running


async def both_say(url: str, *told: str) -> None:
    """A request and a stream fail with one of these texts."""
    async with Client(url, timeout=20) as client, client.stream(f"trade@{BTC}") as stream:
        for work in (client.instruments(), anext(stream)):
            with pytest.raises(SourceError) as caught:
                await work
            assert any(text in str(caught.value) for text in told), caught.value
            assert "_ssl" not in str(caught.value).rpartition("; ")[2]


async def test_the_other_scheme_is_proposed(tmp_path: Path) -> None:
    made = await asyncio.to_thread(certificate, tmp_path)
    async with running(tmp_path / "plain", ids=(BTC,)) as rig:
        host = rig.gateway.url.removeprefix("http://")
        await both_say(f"https://{host}", f"try http://{host}")
    async with running(tmp_path / "data", ids=(BTC,), tls_cert=str(made.cert), tls_key=str(made.key)) as rig:
        host = rig.gateway.url.removeprefix("https://")
        await both_say(f"http://{host}", f"try https://{host}")
        await both_say(f"https://{host}", "pass tls='ca.pem' (command line: --tls-ca ca.pem)")


async def test_a_grpc_port_is_recognised() -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        await both_say(f"http://127.0.0.1:{port}", "gRPC port")
    finally:
        await server.stop(0)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://127.0.0.1:8080/v1", "without a path, http://127.0.0.1:8080$"),
        ("http://me:secret@127.0.0.1:8080/v1/", "without a path, http://127.0.0.1:8080$"),
        ("http://127.0.0.1:8080?tf=1m", "without a path"),
        ("http://127.0.0.1:99999", "write it like"),
        ("127.0.0.1:8080", "write it like"),
    ],
)
def test_an_address_is_a_server(url: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        Client(url)
    assert "secret" not in str(caught.value)


def test_a_certificate_file_that_will_not_do_is_named(tmp_path: Path) -> None:
    text = tmp_path / "text.pem"
    text.write_text("no certificate")
    for file, told in ((tmp_path / "none.pem", "there is no file"), (text, "PEM"), (tmp_path, "cannot be read")):
        with pytest.raises(ConfigError, match=told) as caught:
            Client("https://127.0.0.1:8080", tls=str(file))
        assert str(file) in str(caught.value)
    Client("https://127.0.0.1:8080", tls=ssl.create_default_context())


@pytest.mark.parametrize("token", ["two\nlines", "ends-with-a-blank ", "ümlaut", "nul\0"])
def test_a_token_no_header_can_carry_is_refused_unseen(token: str) -> None:
    with pytest.raises(ConfigError, match="token holds") as caught:
        Client("http://127.0.0.1:8080", token=token)
    assert token.strip() not in str(caught.value)
