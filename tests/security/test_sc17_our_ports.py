"""SC17: HTTPS, WSS and gRPC: a good certificate works; a wrong authority, an expired one and TLS 1.1 do not."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import httpx2
import pytest
from picows import WSError, ws_connect

from tapewick.errors import ConfigError
from tapewick.gateways.grpc import GrpcGateway, Tls
from tapewick.gateways.http import HttpGateway
from tapewick.v1 import service_pb2 as pb
from tapewick.v1 import service_pb2_grpc as rpc
from tests.commands.tapes import tapewick
from tests.conformance.tls import Certificate
from tests.gateways.rig import BTC, Peer, Rig, running
from tests.security.certificates import Authorities, client, eleven, eleven_server, spoken

REFUSED = (ssl.SSLError, ConnectionError)


@asynccontextmanager
async def serving(folder: Path, own: Certificate) -> AsyncIterator[tuple[Rig, GrpcGateway]]:
    cert, key = str(own.cert), str(own.key)
    async with (
        running(folder, tls_cert=cert, tls_key=key) as rig,
        GrpcGateway(rig.market, port=0, tls=Tls(cert=cert, key=key)) as gateway,
    ):
        yield rig, gateway


async def https(rig: Rig, authority: Path) -> None:
    async with httpx2.AsyncClient(verify=client(authority)) as asking:
        assert (await asking.get(f"{rig.gateway.url}/health/live")).status_code == 200


async def wss(rig: Rig, authority: Path) -> None:
    url = rig.gateway.url.replace("https", "wss", 1) + "/v1/ws"
    transport, peer = await ws_connect(Peer, url, ssl_context=client(authority))
    assert isinstance(peer, Peer)
    await peer.got("welcome")
    transport.disconnect(False)
    await transport.wait_disconnected()


def trusting(authority: Path, cert: Path | None = None, key: Path | None = None) -> Any:
    """A gRPC client's credentials."""
    pair = [None if file is None else file.read_bytes() for file in (key, cert)]
    return grpc.ssl_channel_credentials(authority.read_bytes(), *pair)


async def listed(address: str, authority: Path) -> None:
    credentials = trusting(authority)
    async with grpc.aio.secure_channel(address, credentials) as channel:
        stub: Any = rpc.MarketDataStub(channel)  # type: ignore[no-untyped-call]
        assert (await stub.ListInstruments(pb.ListInstrumentsRequest(), timeout=30)).instruments[0].id == BTC


async def check_refused(rig: Rig, gateway: GrpcGateway, authority: Path) -> None:
    with pytest.raises(httpx2.ConnectError, match="(?i)certificate"):
        await https(rig, authority)
    with pytest.raises(ssl.SSLCertVerificationError):
        await wss(rig, authority)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await listed(gateway.address, authority)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_sc17_a_good_certificate_works_another_authority_does_not(tmp_path: Path, certified: Authorities) -> None:
    async with serving(tmp_path, certified.good) as (rig, gateway):
        await https(rig, certified.good.authority)
        await wss(rig, certified.good.authority)
        await listed(gateway.address, certified.good.authority)
        await check_refused(rig, gateway, certified.foreign.authority)


async def test_sc17_an_expired_certificate_is_refused(tmp_path: Path, certified: Authorities) -> None:
    async with serving(tmp_path, certified.expired) as (rig, gateway):
        await check_refused(rig, gateway, certified.expired.authority)
        done = await tapewick(
            "trades", BTC, "--url", rig.gateway.url, "--tls-ca", certified.expired.authority, cwd=tmp_path
        )
        assert done.code == 3 and "certificate" in done.err


async def test_sc17_tls_1_1_is_refused_plain_text_too(tmp_path: Path, certified: Authorities) -> None:
    trusted = certified.good.authority
    async with eleven_server(certified.good) as port:
        assert await spoken(port, eleven(client(trusted))) == "TLSv1.1", "this client could"
    async with serving(tmp_path, certified.good) as (rig, gateway):
        for address in (rig.gateway.url, gateway.address):
            port = int(address.rpartition(":")[2])
            with pytest.raises(REFUSED):
                await spoken(port, eleven(client(trusted)))
            twelve = client(trusted)
            twelve.maximum_version = ssl.TLSVersion.TLSv1_2
            if address == gateway.address:
                twelve.set_alpn_protocols(["h2"])
            assert await spoken(port, twelve) == "TLSv1.2"
        async with httpx2.AsyncClient() as plain:
            with pytest.raises(httpx2.TransportError):
                await plain.get(rig.gateway.url.replace("https", "http", 1) + "/health/live")


async def test_sc17_grpc_asks_roles_for_a_certificate(tmp_path: Path, certified: Authorities) -> None:
    """Mutual TLS: of our authority it works; none, or one of another authority, does not."""
    good, foreign = certified.good, certified.foreign
    tls = Tls(cert=str(good.cert), key=str(good.key), client_ca=str(good.authority))
    async with running(tmp_path) as rig, GrpcGateway(rig.market, port=0, tls=tls) as gateway:
        for shown, works in ((good, True), (foreign, False), (None, False)):
            credentials = trusting(good.authority, *(shown or (None, None))[:2])
            async with grpc.aio.secure_channel(gateway.address, credentials) as channel:
                stub: Any = rpc.MarketDataStub(channel)  # type: ignore[no-untyped-call]
                call = stub.ListInstruments(pb.ListInstrumentsRequest(), timeout=30)
                if works:
                    await call
                else:
                    with pytest.raises(grpc.aio.AioRpcError):
                        await call


def showing(own: Certificate, shown: Certificate | None) -> ssl.SSLContext:
    """A client that trusts ``own``'s authority and shows ``shown``."""
    context = client(own.authority)
    if shown is not None:
        context.load_cert_chain(shown.cert, shown.key)
    return context


async def test_sc17_the_http_port_asks_clients_for_a_certificate(tmp_path: Path, certified: Authorities) -> None:
    """Mutual TLS for HTTP, WebSocket and gRPC: a good certificate works; none, one of another authority, an expired
    one do not."""
    good = certified.good
    cert, key, authority = map(str, good)
    tls = Tls(cert=cert, key=key, client_ca=authority)
    async with (
        running(tmp_path, tls_cert=cert, tls_key=key, tls_client_ca=authority) as rig,
        GrpcGateway(rig.market, port=0, tls=tls) as gateway,
    ):
        url = rig.gateway.url
        for shown, works in ((good, True), (None, False), (certified.foreign, False), (certified.expired, False)):
            context = showing(good, shown)
            pair = (None, None) if shown is None else (shown.cert, shown.key)
            async with (
                httpx2.AsyncClient(verify=context) as asking,
                grpc.aio.secure_channel(gateway.address, trusting(good.authority, *pair)) as channel,
            ):
                stub: Any = rpc.MarketDataStub(channel)  # type: ignore[no-untyped-call]
                call = stub.ListInstruments(pb.ListInstrumentsRequest(), timeout=30)
                if works:
                    assert (await asking.get(f"{url}/v1/instruments")).status_code == 200
                    transport, _ = await ws_connect(Peer, url.replace("https", "wss") + "/v1/ws", ssl_context=context)
                    transport.disconnect(False)
                    await transport.wait_disconnected()
                    await call
                    continue
                with pytest.raises(httpx2.TransportError):
                    await asking.get(f"{url}/health/live")
                with suppress(*REFUSED, WSError):  # picows tells of no listener where the server has left
                    _, peer = await ws_connect(Peer, url.replace("https", "wss") + "/v1/ws", ssl_context=context)
                    assert peer is None
                with pytest.raises(grpc.aio.AioRpcError):
                    await call


async def test_sc17_the_command_line_shows_a_certificate(tmp_path: Path, certified: Authorities) -> None:
    good = certified.good
    both = tmp_path / "me.pem"
    both.write_bytes(good.cert.read_bytes() + good.key.read_bytes())
    cert, key, authority = map(str, good)
    async with running(tmp_path / "d", tls_cert=cert, tls_key=key, tls_client_ca=authority) as rig:
        words = ("trades", BTC, "--url", rig.gateway.url, "--tls-ca", good.authority)
        assert (await tapewick(*words, "--tls-cert", both, cwd=tmp_path)).code == 0
        done = await tapewick(*words, cwd=tmp_path)
        assert done.code == 3 and "--tls-cert" in done.err
        done = await tapewick(*words, "--tls-cert", tmp_path / "none.pem", cwd=tmp_path)
        assert done.code == 2 and "--tls-cert" in done.err
        with pytest.raises(ConfigError, match="server.tls_client_ca"):
            gone = HttpGateway(rig.market, port=0, tls_cert=cert, tls_key=key, tls_client_ca=str(tmp_path / "no"))
            await gone.__aenter__()
        with pytest.raises(ConfigError, match="server.tls_cert"):
            await HttpGateway(rig.market, port=0, tls_client_ca=authority).__aenter__()


async def test_sc17_files_that_do_not_belong_together_are_explained(tmp_path: Path, certified: Authorities) -> None:
    async with running(tmp_path) as rig:
        for cert, key in (
            (str(certified.good.cert), ""),
            (str(certified.good.cert), str(certified.foreign.key)),
            (str(tmp_path / "none.pem"), str(certified.good.key)),
        ):
            with pytest.raises(ConfigError, match="server.tls_cert"):
                await HttpGateway(rig.market, port=0, tls_cert=cert, tls_key=key).__aenter__()
