"""The roles on machines of their own: network namespaces, no file in common, only the servers' addresses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlsplit

import pytest

from tests.buses.link import Link
from tests.buses.rig import BusRig
from tests.fault.rig import seed
from tests.fault.roles.network import Network, permitted
from tests.fault.roles.rig import Cluster, cluster
from tests.fault.roles.witness import Names, Witness
from tests.fault.truth import assert_tape_is_the_truth
from tests.parts.absent import absent
from tests.parts.postgres import PostgresServer

TOKEN = "a-token-of-this-test-only"
ADDRESSES = ("TAPEWICK_STORE__DSN", "TAPEWICK_REDIS__URL")


@asynccontextmanager
async def reachable(host: str, address: str) -> AsyncIterator[str]:
    """``address`` of a server on our loopback, as it is from the machines."""
    port = urlsplit(address).port
    assert port
    link = Link(port)
    server = await asyncio.start_server(link.accept, host, 0)
    try:
        yield address.replace(f"127.0.0.1:{port}", f"{host}:{server.sockets[0].getsockname()[1]}")
    finally:
        server.close()
        await link.end()
        await server.wait_closed()


async def start_everywhere(own: Cluster, network: Network, env: dict[str, str]) -> str:
    """Each role on its machine; the gateway's address."""
    one, two, three, four = network.machines
    own.add("engine", within=one.within, **env)
    own.add("engine", within=two.within, **env)
    own.add("collect", within=three.within, **env)
    serving = {"TAPEWICK_SERVER__HOST": four.address, "TAPEWICK_GRPC__HOST": four.address}
    gateway = own.add("gateway", within=four.within, TAPEWICK_SERVER__TOKENS=TOKEN, **serving, **env)
    await own.ready(gateway)
    assert gateway.url.startswith(f"http://{four.address}:")
    return gateway.url


@pytest.mark.timeout(600)
async def test_roles_on_machines_of_their_own_are_one_system(redis_bus: BusRig, postgres: PostgresServer) -> None:
    if why := permitted():
        absent(f"no network namespaces here: {why}")
    chosen = seed()
    with Network(4) as network:
        async with AsyncExitStack() as stack:
            own = await stack.enter_async_context(cluster(redis_bus, postgres, seed=chosen, host=network.host))
            known = own.settings()
            env = {name: await stack.enter_async_context(reachable(network.host, known[name])) for name in ADDRESSES}
            url = await start_everywhere(own, network, env)
            group = await stack.enter_async_context(asyncio.TaskGroup())
            await own.grown()
            witness = Witness(url, own.ids, Names(), token=TOKEN)
            following = group.create_task(witness.follow())
            own.roles[0].kill()  # one machine dies, and stays dead
            for _ in range(3):
                await own.grown()
            await own.halt()
            assert await assert_tape_is_the_truth(own) > 100
            await witness.assert_exact(own)
            following.cancel()
