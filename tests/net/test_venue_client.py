"""What a venue may answer a REST client, and that the client neither gives up for ever nor earns a ban."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest

from tapewick import metrics
from tapewick.clock import Clock, ManualClock, RealClock
from tapewick.errors import BadPayload, ConfigError, Disconnected, SourceError, VenueRefused
from tapewick.net.venue_client import CircuitChange, Priority, VenueClient

pytestmark = pytest.mark.timeout(30)

START = 60 * 10**9 * 28_333_333


class Number(msgspec.Struct):
    n: int


def response(body: bytes, status: str = "200 OK", *headers: str, length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


GOOD = response(b'{"n":5}', "200 OK", "X-MBX-USED-WEIGHT-1M: 37")
LIMITED = response(b'{"code":-1003}', "429 Too Many Requests", "Retry-After: 7")
BANNED = response(b'{"code":-1003}', "418 I'm a teapot", "Retry-After: 300")
BROKEN = {
    "5xx": response(b"{}", "503 Service Unavailable"),
    "time-out of the venue": response(b'{"code":-1007}', "408 Request Timeout"),
    "html": response(b"<html><body>maintenance"),
    "html error": response(b"<html>", "500 Internal Server Error", "Content-Type: text/html"),
    "truncated gzip": response(gzip.compress(b'{"n":1}', mtime=0)[:-12], "200 OK", "Content-Encoding: gzip"),
    "cut body": response(b'{"n":1}', length=700),
    "no http": b"what is this\r\n\r\n",
    "nothing": b"",
}


class Host:
    """A server that gives the same answer until the test changes it, and notes what it was asked."""

    def __init__(self) -> None:
        self.answer = GOOD
        self.paths: list[str] = []
        self.url = ""
        self.hold: asyncio.Event | None = None
        self._asked = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.paths.append(head.split(b" ", 2)[1].decode())
            self._asked.set()
            if self.hold is not None:
                await self.hold.wait()
            writer.write(self.answer)
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    async def asked(self, times: int) -> None:
        while len(self.paths) < times:
            self._asked.clear()
            await self._asked.wait()


@asynccontextmanager
async def hosting() -> AsyncIterator[Host]:
    host = Host()
    server = await asyncio.start_server(host.serve, "127.0.0.1", 0)
    host.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield host


def client(
    *urls: str,
    clock: Clock | None = None,
    retry_cap: float = 0.02,
    attempts: int = 4,
    timeout: float = 10.0,
    on_state: Callable[[CircuitChange], None] | None = None,
) -> VenueClient:
    return VenueClient(
        urls,
        clock=clock or RealClock(),
        retry_cap=retry_cap,
        attempts=attempts,
        timeout=timeout,
        on_state=on_state,
    )


class States:
    """The changes of a client's circuit, to look at and to wait for."""

    def __init__(self) -> None:
        self.changes: list[CircuitChange] = []
        self._more = asyncio.Event()

    def __call__(self, change: CircuitChange) -> None:
        self.changes.append(change)
        self._more.set()

    @property
    def names(self) -> list[str]:
        return [change.state for change in self.changes]

    async def until(self, state: str, times: int = 1) -> None:
        while self.names.count(state) < times:
            self._more.clear()
            await self._more.wait()


def state(venue: VenueClient) -> str:
    return venue.state


async def turns() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


async def test_an_answer_is_decoded_counted_and_its_weight_believed() -> None:
    async with hosting() as host, client(host.url) as venue:
        assert (await venue.get("/x", Number, {"a": 1}, weight=20, priority=Priority.BOOK)).n == 5
        assert bytes(await venue.get("/x", msgspec.Raw, weight=3)) == b'{"n":5}'
        assert host.paths == ["/x?a=1", "/x"]
        assert (state(venue), venue.trouble, venue.host, venue.weight_used) == ("closed", None, host.url, 37)
        assert venue.counters == {"ok": 2}
        labels = {"host": host.url.removeprefix("http://")}
        assert metrics.REGISTRY.get_sample_value("tapewick_venue_weight_used", labels) == 37
        assert metrics.REGISTRY.get_sample_value("tapewick_venue_requests_total", {**labels, "outcome": "ok"}) == 2


@pytest.mark.parametrize("kind", BROKEN)
async def test_what_cannot_be_read_is_asked_again_a_few_times_and_recovers_alone(kind: str) -> None:
    told = States()
    async with hosting() as host, client(host.url, on_state=told) as venue:
        host.answer = BROKEN[kind]
        with pytest.raises(SourceError) as failed:
            await venue.get("/x", Number)
        assert isinstance(failed.value, VenueRefused | Disconnected)
        assert len(host.paths) == 4
        assert state(venue) == "open" and venue.trouble == str(failed.value)
        assert told.names == ["open"]
        assert told.changes[0].detail == str(failed.value)
        assert told.changes[0].status == getattr(failed.value, "status", 0)
        with pytest.raises(SourceError):
            await venue.get("/x", Number)
        assert len(host.paths) == 5, "a circuit that was open lets one attempt through, not four"
        host.answer = GOOD
        assert (await venue.get("/x", Number)).n == 5
        assert state(venue) == "closed" and venue.trouble is None
        assert told.names == ["open", "half_open", "open", "half_open", "closed"]
        labels = {"host": host.url.removeprefix("http://"), "state": "closed"}
        assert metrics.REGISTRY.get_sample_value("tapewick_venue_circuit", labels) == 1


async def test_the_circuit_of_every_host_is_told_from_the_start_and_the_worst_counts() -> None:
    def told(host: Host, state: str) -> float | None:
        labels = {"host": host.url.removeprefix("http://"), "state": state}
        return metrics.REGISTRY.get_sample_value("tapewick_venue_circuit", labels)

    async with hosting() as host, hosting() as other, client(host.url) as well, client(other.url):
        for each in (host, other):
            assert [told(each, state) for state in ("closed", "half_open", "open")] == [1, 0, 0]
        async with client(host.url, retry_cap=3600) as ill:
            host.answer = BROKEN["5xx"]
            with pytest.raises(SourceError):
                await ill.get("/x", Number)
            host.answer = GOOD
            assert (await well.get("/x", Number)).n == 5  # another's success is not its own
            assert [told(host, state) for state in ("closed", "half_open", "open")] == [0, 0, 1]
            assert told(other, "closed") == 1
        assert told(host, "closed") == 1, "who has gone tells nothing"


async def test_a_single_hiccup_is_not_noticed() -> None:
    told = States()
    async with hosting() as host, client(host.url, retry_cap=5.0, on_state=told) as venue:
        host.answer = BROKEN["5xx"]
        asking = asyncio.create_task(venue.get("/x", Number))
        await host.asked(1)
        host.answer = GOOD
        assert (await asking).n == 5 and not told.changes


async def test_a_venue_that_stays_silent_or_away_is_asked_a_few_times() -> None:
    async with hosting() as host, client(host.url, timeout=0.1) as venue:
        host.hold = asyncio.Event()
        with pytest.raises(Disconnected):
            await venue.get("/x", Number)
        assert venue.counters == {"unreachable": 4} and len(host.paths) <= 4
        host.hold.set()
    async with client("http://127.0.0.1:1", attempts=3) as venue:
        with pytest.raises(Disconnected, match="127.0.0.1:1 cannot be reached"):
            await venue.get("/x", Number)
        assert venue.counters == {"unreachable": 3} and state(venue) == "open"


async def test_429_stops_every_client_of_the_host_until_its_time_is_over() -> None:
    clock, told = ManualClock(START), States()
    async with hosting() as host, client(host.url, clock=clock, retry_cap=0.0, on_state=told) as one:
        async with client(host.url, clock=clock, retry_cap=0.0) as other:
            host.answer = LIMITED
            first = asyncio.create_task(one.get("/x", Number))
            await told.until("open")
            waiting = [asyncio.create_task(venue.get("/y", Number)) for venue in (one, other, other)]
            assert state(other) == "open" and "HTTP 429" in (other.trouble or "")
            host.answer = GOOD
            clock.advance(6.9)
            await turns()
            assert len(host.paths) == 1
            clock.advance(0.1)
            assert [answer.n for answer in await asyncio.gather(first, *waiting)] == [5] * 4
            assert len(host.paths) == 5 and state(one) == state(other) == "closed"
            assert one.counters["limited"] == 1


async def test_a_429_without_a_time_waits_a_minute() -> None:
    clock = ManualClock(START)
    async with hosting() as host, client(host.url, clock=clock, retry_cap=0.0, attempts=1) as venue:
        host.answer = response(b"{}", "429 Too Many Requests")
        with pytest.raises(VenueRefused, match="429"):
            await venue.get("/x", Number)
        host.answer = GOOD
        waiting = asyncio.create_task(venue.get("/x", Number))
        clock.advance(59.9)
        await turns()
        assert len(host.paths) == 1
        clock.advance(0.1)
        await waiting


async def test_endless_429_ends_within_the_attempts() -> None:
    clock, told = ManualClock(START), States()
    async with hosting() as host, client(host.url, clock=clock, retry_cap=0.0, attempts=3, on_state=told) as venue:
        host.answer = LIMITED
        asking = asyncio.create_task(venue.get("/x", Number))
        for times in (1, 2, 3):
            await told.until("open", times)
            await turns()
            clock.advance(7)
        with pytest.raises(VenueRefused, match="429"):
            await asking
        assert len(host.paths) == 3


async def test_a_ban_is_never_answered_with_requests() -> None:
    clock = ManualClock(START)
    async with hosting() as host, client(host.url, clock=clock, retry_cap=0.0) as venue:
        host.answer = BANNED
        with pytest.raises(VenueRefused) as refused:
            await venue.get("/x", Number)
        assert (refused.value.status, refused.value.retry_after) == (418, 300.0)
        for _ in range(20):
            clock.advance(5)
            with pytest.raises(VenueRefused, match="not asked again for") as refused:
                await venue.get("/x", Number)
            assert refused.value.status == 418
        async with client(host.url, clock=clock, retry_cap=0.0) as late:
            with pytest.raises(VenueRefused, match=r"HTTP 418.*not asked again for 200 s"):
                await late.get("/x", Number)
        assert len(host.paths) == 1 and state(venue) == "open" and "418" in (venue.trouble or "")
        host.answer = GOOD
        clock.advance(200)
        assert (await venue.get("/x", Number)).n == 5
        assert state(venue) == "closed"


async def test_a_url_the_firewall_refused_is_not_repeated() -> None:
    clock = ManualClock(START)
    async with hosting() as host, client(host.url, clock=clock) as venue:
        host.answer = response(b"<html>", "403 Forbidden", "Content-Type: text/html")
        for _ in range(3):
            with pytest.raises(VenueRefused, match="403") as refused:
                await venue.get("/x", Number, {"symbol": "SELECT"})
            assert refused.value.status == 403
        assert len(host.paths) == 1 and venue.counters == {"forbidden": 1, "withheld": 2}
        host.answer = GOOD
        await venue.get("/x", Number, {"symbol": "BTCUSDT"})
        clock.advance(301)
        await venue.get("/x", Number, {"symbol": "SELECT"})
        assert len(host.paths) == 3


async def test_451_goes_on_at_the_next_address_for_good() -> None:
    clock = ManualClock(START)
    async with hosting() as barred, hosting() as open_, client(barred.url, open_.url, clock=clock, attempts=1) as venue:
        barred.answer = response(b"{}", "451 Unavailable For Legal Reasons")
        assert (await venue.get("/x", Number)).n == 5
        clock.advance(3600)
        assert (await venue.get("/y", Number)).n == 5
        assert (barred.paths, open_.paths, venue.host) == (["/x"], ["/x", "/y"], open_.url)
        assert state(venue) == "closed"


async def test_451_everywhere_names_the_setting() -> None:
    async with hosting() as one, hosting() as two, client(one.url, two.url) as venue:
        one.answer = two.answer = response(b"{}", "451 Unavailable For Legal Reasons")
        with pytest.raises(VenueRefused, match="does not serve this region: set BINANCE_BASE_URL") as refused:
            await venue.get("/x", Number)
        assert refused.value.status == 451 and state(venue) == "open"
        assert (len(one.paths), len(two.paths)) == (1, 1)
        one.answer = GOOD
        assert (await venue.get("/x", Number)).n == 5
        assert venue.host == one.url


async def test_a_refusal_by_content_is_final_and_no_trouble() -> None:
    async with hosting() as host, client(host.url) as venue:
        host.answer = response(b'{"code":-1121,"msg":"Invalid symbol."}', "400 Bad Request")
        with pytest.raises(VenueRefused, match="-1121"):
            await venue.get("/x", Number)
        host.answer = response(b'{"n":"five"}')
        with pytest.raises(BadPayload):
            await venue.get("/x", Number)
        assert len(host.paths) == 2 and state(venue) == "closed"
        assert venue.counters == {"rejected": 1, "shape": 1}


async def test_one_probe_at_a_time_while_the_circuit_is_open() -> None:
    async with hosting() as host, client(host.url, attempts=1) as venue:
        host.answer = BROKEN["5xx"]
        with pytest.raises(VenueRefused):
            await venue.get("/x", Number)
        host.hold = asyncio.Event()
        asking = [asyncio.create_task(venue.get("/x", Number)) for _ in range(5)]
        await host.asked(2)
        await turns()
        assert state(venue) == "half_open" and len(host.paths) == 2
        probe = next(task for task in asking if not task.done())
        for task in asking:  # the probe gives up: another takes its place
            task.cancel()
        await asyncio.wait(asking)
        assert probe.cancelled() and state(venue) == "open"
        host.hold.set()
        host.answer = GOOD
        assert [answer.n for answer in await asyncio.gather(*(venue.get("/x", Number) for _ in range(5)))] == [5] * 5
        assert state(venue) == "closed"


async def test_a_fallback_address_serves_until_the_first_is_tried_again() -> None:
    clock = ManualClock(START)
    async with hosting() as first, hosting() as second:
        async with client(first.url, second.url, clock=clock, retry_cap=0.0) as venue:
            first.answer = BROKEN["5xx"]
            with pytest.raises(VenueRefused):
                await venue.get("/x", Number)
            assert (await venue.get("/x", Number)).n == 5
            assert venue.host == second.url and len(first.paths) == 4
            first.answer = GOOD
            clock.advance(601)
            await venue.get("/x", Number)
            assert venue.host == first.url and (len(first.paths), len(second.paths)) == (5, 1)


def test_a_client_needs_an_address() -> None:
    with pytest.raises(ConfigError, match="BINANCE_BASE_URL"):
        VenueClient([])
