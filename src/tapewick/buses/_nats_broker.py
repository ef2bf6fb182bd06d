"""NATS servers with JetStream as ``Broker``: one connection, streams, floors as messages of a stream of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Iterable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from tapewick.buses._broker import RECENT, SHARED, Parcel, Place, Standing, places
from tapewick.buses._nats_driver import (
    APIError,
    Client,
    JetStreamContext,
    NatsError,
    NoStreamResponseError,
    NotFoundError,
    PubAck,
    ServiceUnavailableError,
    StreamConfig,
    failure,
)
from tapewick.buses._nats_reader import NatsReader
from tapewick.buses._trouble import ended
from tapewick.errors import BusError, BusRefused

__all__ = ["NatsBroker"]

ANSWER = 5.0  # seconds an answer may take
ATTEMPTS = 3  # to connect, where the connection breaks as it begins
FAREWELL = 1.0  # seconds closing a connection may take
LOOK = 0.5  # seconds between two looks whether the connection stands, while an answer is due
# Messages that stay though everybody has them: where a purge reaches the place a consumer reads at, the server may move
# that consumer over messages that nobody has read (2.9.10 does, with purges of a subject while others publish).
KEPT = 100
FRESH = 1.0  # seconds for which it is known where a topic's partitions end
OTHERWISE = 10058  # error code: the stream exists with another configuration

T = TypeVar("T")
_Note: TypeAlias = tuple[int, str]  # a floor, and when the stream was made of which it tells


async def _end(client: Client) -> None:
    """Close a connection; the driver waits without end for one whose TLS handshake failed."""
    closing = asyncio.ensure_future(client.close())
    await asyncio.wait({closing}, timeout=FAREWELL)
    await ended([closing])


def _broke(error: Exception) -> bool:
    """Whether a connection ended as it began, for a reason that another one may not meet: the server closed it, or
    waited in vain for a name and password that were still on their way."""
    return isinstance(error, ConnectionError) or "Authentication Timeout" in str(error)


async def _all(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    return await asyncio.gather(*works)


async def _make(js: JetStreamContext, config: StreamConfig) -> None:
    """Create a stream, or bring an existing one up to date."""
    try:
        await js.add_stream(config)
    except APIError as error:
        if error.err_code != OTHERWISE:
            raise
        await js.update_stream(config)


def _of(note: _Note, made: str) -> int:
    """The floor that was noted, 0 if it is of another stream than the one made at ``made``."""
    floor, of = note
    return floor if of in ("", made) else 0


def _missed(floors: Iterable[Mapping[str, int]], first: int) -> set[str]:
    """Groups that had not read what was before the sequence number ``first``. Partitions share a stream's numbers, so
    of what lies below a group's highest floor nobody knows whose it was."""
    highest: dict[str, int] = {}
    for own in floors:
        highest |= {group: max(floor, highest.get(group, 0)) for group, floor in own.items()}
    return {group for group, floor in highest.items() if first > floor + 1}


class NatsBroker:
    """``Broker`` on the servers at ``url``. ``limits`` of every stream, ``options`` of the driver."""

    kind = "nats"

    def __init__(
        self, url: str, *, name: str, partitions: int, limits: StreamConfig, options: Mapping[str, Any]
    ) -> None:
        self._servers = [one.strip() for one in url.split(",")]
        self._name, self._partitions, self._limits, self._options = name, partitions, limits, options
        self._client: Client | None = None
        self._known: set[str] = set()
        self._newest: dict[str, tuple[float, dict[int, int]]] = {}  # when it was asked, and what ``_ends`` tells
        self._made: dict[str, str] = {}  # when the stream was made whose floors were read last
        self._born: dict[str, str] = {}  # when the stream was made of which readers have positions
        self._why: Exception | None = None
        self._connecting = asyncio.Lock()
        self._gone = asyncio.Event()  # the connection broke: what waits for an answer waits in vain

    # -- connection ----------------------------------------------------------------------------

    async def connect(self) -> None:
        client = await self.live()
        try:
            await client.jetstream(timeout=ANSWER).account_info()
        except ServiceUnavailableError as error:
            raise BusRefused("NATS has no JetStream: start nats-server with -js and a store folder") from error
        except (NatsError, OSError, TimeoutError) as error:
            raise failure(error, "asking for JetStream") from error

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await _end(client)

    async def live(self) -> Client:
        """The connection, made anew if it broke: whoever meets the break backs off by itself."""
        async with self._connecting:
            if self._client is not None and self.uses(self._client):
                return self._client
            await self.close()
            self._client = await self._connected()
            return self._client

    async def _connected(self) -> Client:
        """A connection. Raises ``BusRefused`` where the server lets us not in, else ``BusError``.

        A server that turns us down says so and closes, and the driver, which has sent a ping meanwhile, may meet the
        closed socket before it has read why. So a connection that breaks as it begins is tried again in the driver's
        mode that waits for the verdict before it sends more; what breaks there too was no refusal.
        """
        for _ in range(ATTEMPTS):
            try:
                return await self._opened()
            except ConnectionError as error:
                broke = failure(error, "connecting")
            try:
                await _end(await self._opened(verbose=True))
            except ConnectionError:
                continue
        raise broke

    async def _opened(self, *, verbose: bool = False) -> Client:
        """Connect once. Raises ``ConnectionError`` if that broke on the way, else ``BusError``."""
        self._why, self._gone = None, asyncio.Event()
        client, gone = Client(), self._gone

        async def broke() -> None:
            gone.set()

        try:
            async with asyncio.timeout(ANSWER):
                await client.connect(
                    self._servers,
                    error_cb=self._failed,
                    disconnected_cb=broke,
                    closed_cb=broke,
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    ping_interval=10,
                    verbose=verbose,
                    **self._options,
                )
            if not client.is_connected:  # the driver takes an end of the stream for an answer
                raise ConnectionResetError("the server closed the connection instead of answering")
        except (NatsError, OSError, TimeoutError, ValueError) as error:
            why = self._why  # of before the end, which may meet a closed socket and tell of that
            await _end(client)
            if isinstance(error, ConnectionRefusedError) or not _broke(error):
                raise failure(why or error, "connecting") from error
            raise ConnectionResetError(str(error) or type(error).__name__) from error
        self._known.clear()
        return client

    async def _failed(self, error: Exception) -> None:
        self._why = error

    def uses(self, client: Client) -> bool:
        """Whether ``client`` is the connection still. The driver does not always say when it gives one up."""
        return client is self._client and client.is_connected and not self._gone.is_set()

    async def _js(self) -> JetStreamContext:
        return (await self.live()).jetstream(timeout=ANSWER)

    async def do(self, what: str, work: Coroutine[Any, Any, T]) -> T:
        """The outcome of ``work``, or an error once the connection broke. Raises ``BusError``."""
        client, task = self._client, asyncio.ensure_future(work)
        broken = asyncio.ensure_future(self._gone.wait())
        try:
            for _ in range(int(2 * ANSWER / LOOK)):
                await asyncio.wait({task, broken}, timeout=LOOK, return_when=asyncio.FIRST_COMPLETED)
                if task.done() or client is None or not self.uses(client):
                    break
            if not task.done():
                raise BusError(f"NATS does not answer while {what} (the connection broke); is it running at nats.url?")
            return task.result()
        except (NatsError, OSError, TimeoutError) as error:
            if isinstance(error, NoStreamResponseError | NotFoundError):
                self._known.clear()
            raise failure(error, what) from error
        finally:
            broken.cancel()
            task.cancel()

    # -- streams -------------------------------------------------------------------------------

    def _stream(self, topic: str) -> str:
        return f"{self._name}-{topic}"

    def _subject(self, place: Place) -> str:
        return f"{self._name}.{place[0]}.{place[1]}"

    async def _ensure(self, topic: str) -> None:
        """Create the topic's stream where there is none, or bring its limits up to date."""
        js = await self._js()
        if topic in self._known:
            return
        config = self._limits.evolve(name=self._stream(topic), subjects=[f"{self._name}.{topic}.*"])
        if topic not in SHARED:
            age = min(self._limits.max_age or RECENT, RECENT)
            config = config.evolve(max_age=age, duplicate_window=min(self._limits.duplicate_window, age))
        if topic == "floors":
            config = config.evolve(subjects=[f"{self._name}.floors.>"], max_msgs_per_subject=1, max_age=0)
        await self.do(f"making the stream {config.name}", _make(js, config))
        self._known.add(topic)

    async def _info(self, topic: str, subjects: str | None = None) -> Any:
        await self._ensure(topic)
        work = (await self._js()).stream_info(self._stream(topic), subjects_filter=subjects)
        return await self.do("asking for a stream", work)

    async def send(self, parcels: Sequence[Parcel]) -> list[int]:
        for topic in {one.place[0] for one in parcels}:
            await self._ensure(topic)
        return await self._publish([(self._subject(one.place), one.payload, one.id) for one in parcels])

    async def _publish(self, messages: Sequence[tuple[str, bytes, str]]) -> list[int]:
        js = await self._js()
        under_way: list[asyncio.Future[PubAck]] = []

        async def answers() -> list[PubAck]:
            for subject, payload, id in messages:
                headers = {"Nats-Msg-Id": id} if id else None
                under_way.append(await js.publish_async(subject, payload, headers=headers))
            return await asyncio.gather(*under_way)

        try:
            return [answer.seq for answer in await self.do("adding messages", answers())]
        finally:
            for future in under_way:
                future.cancel()

    async def ends(self, wanted: Collection[Place]) -> dict[Place, int]:
        last = {topic: (await self._info(topic)).state.last_seq for topic in {topic for topic, _ in wanted}}
        return {place: last[place[0]] for place in wanted}

    async def births(self, topics: Collection[str]) -> Mapping[str, str]:
        born = {topic: str((await self._info(topic)).created) for topic in topics}
        self._born |= born
        return born

    # -- floors --------------------------------------------------------------------------------

    def _floor(self, group: str, place: Place) -> str:
        return f"{self._name}.floors.{group}.{place[0]}.{place[1]}"

    async def floors(self, group: str, wanted: Collection[Place]) -> dict[Place, int]:
        infos = {topic: await self._info(topic) for topic in {topic for topic, _ in wanted}}
        self._born |= {topic: str(info.created) for topic, info in infos.items()}
        notes = await self._read([self._floor(group, place) for place in wanted])
        found, fresh = {}, {}
        for place, note in zip(wanted, notes, strict=True):
            if note is None:
                fresh[place] = max(0, infos[place[0]].state.first_seq - 1)
            else:
                found[place] = _of(note, self._born[place[0]])
        await self.commit(group, fresh)
        return found | fresh

    async def _read(self, subjects: Sequence[str]) -> list[_Note | None]:
        """The floors noted under these subjects."""
        await self._ensure("floors")
        js, stream = await self._js(), self._stream("floors")

        async def one(subject: str) -> _Note | None:
            try:
                floor, _, made = ((await js.get_last_msg(stream, subject)).data or b"0").decode().partition(" ")
            except NotFoundError:
                return None
            return int(floor), made

        return await self.do("asking for a group", _all(map(one, subjects)))

    async def commit(self, group: str, floors: Mapping[Place, int]) -> None:
        await self._ensure("floors")
        notes = [
            (self._floor(group, place), f"{floor} {self._born.get(place[0], '')}".encode(), "")
            for place, floor in floors.items()
        ]
        await self._publish(notes)

    async def standing(self, topic: str) -> dict[int, Standing]:
        info = await self._info(topic, f"{self._name}.{topic}.*")  # before the floors: they only rise
        state, self._made[topic] = info.state, str(info.created)
        pattern = f"{self._name}.floors.*.{topic}.*"
        subjects = sorted((await self._info("floors", pattern)).state.subjects or {})
        notes, end = await self._read(subjects), state.last_seq
        floors = [0 if note is None else _of(note, self._made[topic]) for note in notes]
        if any(floor > end for floor in floors):
            later = await self._info(topic)  # messages came and were acknowledged since the first look
            end = later.state.last_seq if str(later.created) == self._made[topic] else end
        found: dict[int, dict[str, int]] = {place[1]: {} for place in places((topic,), self._partitions)}
        for subject, floor in zip(subjects, floors, strict=True):
            *_, group, _, partition = subject.split(".")
            own = floor if floor <= end else 0  # else it is of a stream that is gone
            found.setdefault(int(partition), {})[group] = own
        counts = {int(subject.rpartition(".")[2]): count for subject, count in (state.subjects or {}).items()}
        ends = await self._ends(topic, counts)
        missed = _missed(found.values(), state.first_seq)
        return {
            partition: Standing(
                state.first_seq,
                {
                    group: counts.get(partition, 0) if floor < ends.get(partition, 0) else 0
                    for group, floor in floors.items()
                },
                floors,
                missed,
            )
            for partition, floors in found.items()
        }

    async def _ends(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        """Where the newest message of each of these partitions is, as of ``FRESH`` ago at most: what is kept does not
        tell how much of it groups have read."""
        now = asyncio.get_running_loop().time()
        looked, ends = self._newest.get(topic, (-FRESH, {}))
        if now - looked >= FRESH:
            js, stream = await self._js(), self._stream(topic)

            async def end(partition: int) -> int:
                try:
                    return (await js.get_last_msg(stream, self._subject((topic, partition)))).seq or 0
                except NotFoundError:  # it has been let go of meanwhile
                    return 0

            found: list[int] = await self.do("asking where messages end", _all(map(end, partitions)))
            ends = dict(zip(partitions, found, strict=True))
            self._newest[topic] = now, ends
        return ends

    async def release(self, topic: str, floors: Mapping[int, int]) -> None:
        js, stream = await self._js(), self._stream(topic)
        if str((await self._info(topic)).created) != self._made.get(topic):
            return  # made anew since the floors were read: they are not of these messages
        last = max(floors.values(), default=0) - KEPT
        for partition, floor in floors.items():
            if (upto := min(floor, last)) > 0:
                work = js.purge_stream(stream, seq=upto + 1, subject=self._subject((topic, partition)))
                await self.do("letting messages go", work)

    async def life(self) -> str:
        return str((await self._info("floors")).created)

    # -- reading -------------------------------------------------------------------------------

    async def reader(self, after: Mapping[Place, int]) -> NatsReader:
        """One consumer per topic, or where only some partitions of it are wanted, one per partition."""
        client = await self.live()
        topics: dict[str, dict[Place, int]] = {}
        for place, position in after.items():
            topics.setdefault(place[0], {})[place] = position
        reader = NatsReader(self, client)
        try:
            for topic, own in topics.items():
                await self._ensure(topic)
                whole = topic not in SHARED or len(own) == self._partitions
                for part in [own] if whole else [{place: position} for place, position in own.items()]:
                    subject = None if whole else self._subject(next(iter(part)))
                    await self.do(
                        "making a reader",
                        reader.add(client.jetstream(timeout=ANSWER), self._stream(topic), subject, part),
                    )
        except BaseException:
            await reader.close()
            raise
        return reader
