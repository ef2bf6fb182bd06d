"""NATS JetStream: a stream per topic, a subject per partition. Floors are the last messages of a stream of their own.

A reader is an ephemeral pull consumer without acknowledgements that starts where it is told to: whoever
takes a partition over needs no time-out to pass. A message sent again has the same ``Nats-Msg-Id``; after the
server's window for such repetitions, readers know it by its number.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import deque
from collections.abc import Collection, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from tapewick.buses._broker import NO_TLS, RECENT, SHARED, Arrival, Parcel, Place, Standing, Tls, places
from tapewick.buses._network import NetworkBus
from tapewick.buses._trouble import ended
from tapewick.clock import Clock
from tapewick.errors import BusError, BusRefused, ConfigError, MissingExtra

try:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.errors import AuthorizationError, MaxPayloadError
    from nats.errors import Error as NatsError
    from nats.js import JetStreamContext
    from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, PubAck, StorageType, StreamConfig
    from nats.js.errors import APIError, NoStreamResponseError, NotFoundError, ServiceUnavailableError
except ImportError as error:
    raise MissingExtra("the NATS bus (setting bus.kind)", "nats") from error

__all__ = ["NatsBus"]

ANSWER = 5.0  # seconds an answer may take
FAREWELL = 1.0  # seconds closing a connection may take
LOOK = 0.5  # seconds between two looks whether the connection stands, while an answer is due
PULL = 5.0  # seconds a request for messages stands
PULLED = 64  # messages asked for at once
PULLED_BYTES = 4 << 20  # the same in bytes
UNUSED = 60.0  # seconds after which the server forgets a reader that asks for nothing
OTHERWISE = 10058  # error code: the stream exists with another configuration
NO_JETSTREAM = (10039, 10076)  # error codes of servers or accounts without JetStream

T = TypeVar("T")


class NatsBus(NetworkBus):
    """A bus on the NATS servers at ``url`` (``nats|tls://[user:password@]host:port``, several separated by commas).

    ``name`` begins all its streams. Each keeps ``stream_bytes`` and ``max_age`` seconds at most, then discards the
    oldest; a repetition within ``dedupe`` seconds is not stored. ``credentials``: path of a ``.creds`` file.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str = "tapewick",
        partitions: int = 16,
        max_bytes: int = 16 << 20,
        stream_bytes: int = 1 << 30,
        max_age: float = 86_400,
        dedupe: float = 120,
        replicas: int = 1,
        credentials: str = "",
        tls: Tls = NO_TLS,
        clock: Clock | None = None,
    ) -> None:
        limits = StreamConfig(
            max_bytes=stream_bytes,
            max_age=max_age,
            duplicate_window=min(dedupe, max_age),
            num_replicas=replicas,
            storage=StorageType.FILE,
        )
        broker = _NatsBroker(
            url, name=name, partitions=partitions, limits=limits, options=_options(url, name, credentials, tls)
        )
        super().__init__(broker, partitions=partitions, max_bytes=max_bytes, clock=clock)


def _options(url: str, name: str, credentials: str, tls: Tls) -> dict[str, Any]:
    """What the driver needs besides addresses. Raises ``ConfigError`` for files it cannot use."""
    options: dict[str, Any] = {"name": name}
    if credentials:
        options["user_credentials"] = credentials
    if url.startswith("tls://"):
        try:
            context = ssl.create_default_context(cafile=tls.ca or None)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if tls.cert:
                context.load_cert_chain(tls.cert, tls.key or None)
        except OSError as error:
            raise ConfigError(f"nats.tls_ca, nats.tls_cert or nats.tls_key cannot be used: {error}") from error
        options["tls"] = context
    elif any(tls):
        raise ConfigError("nats.tls_* are set, but nats.url does not begin with tls://")
    return options


def _broken(error: Exception, what: str) -> BusError:
    """The driver's error as ours, with what to do."""
    text = str(error) or type(error).__name__
    if isinstance(error, AuthorizationError) or "uthorization" in text or "ermissions" in text:
        return BusRefused(
            f"NATS refuses {what}: {text}; check the user in nats.url or nats.credentials, and its rights"
        )
    if isinstance(error, MaxPayloadError):
        return BusRefused(f"NATS refuses {what}: the message is larger than the server's max_payload; raise that")
    if isinstance(error, APIError):
        if error.err_code in NO_JETSTREAM:
            return BusRefused(f"NATS has no JetStream: start nats-server with -js and a store folder ({text})")
        return BusError(f"NATS refuses {what}: {error.description or text}")
    return BusError(f"NATS does not answer while {what} ({text}); is it running at nats.url, with JetStream?")


async def _end(client: Client) -> None:
    """Close a connection; the driver waits without end for one whose TLS handshake failed."""
    closing = asyncio.ensure_future(client.close())
    await asyncio.wait({closing}, timeout=FAREWELL)
    await ended([closing])


async def _make(js: JetStreamContext, config: StreamConfig) -> None:
    """Create a stream, or bring an existing one up to date."""
    try:
        await js.add_stream(config)
    except APIError as error:
        if error.err_code != OTHERWISE:
            raise
        await js.update_stream(config)


class _NatsBroker:
    kind = "nats"

    def __init__(
        self, url: str, *, name: str, partitions: int, limits: StreamConfig, options: Mapping[str, Any]
    ) -> None:
        self._servers = [one.strip() for one in url.split(",")]
        self._name, self._partitions, self._limits, self._options = name, partitions, limits, options
        self._client: Client | None = None
        self._known: set[str] = set()
        self._made: dict[str, str] = {}  # when the stream was made whose floors were read last
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
            raise _broken(error, "asking for JetStream") from error

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
                    **self._options,
                )
        except (NatsError, OSError, TimeoutError, ValueError) as error:
            await _end(client)
            raise _broken(self._why or error, "connecting") from error
        self._known.clear()
        return client

    async def _failed(self, error: Exception) -> None:
        self._why = error

    def uses(self, client: Client) -> bool:
        """Whether ``client`` is the connection still. The driver does not always say when it gives one up."""
        return client is self._client and client.is_connected and not self._gone.is_set()

    async def _js(self) -> JetStreamContext:
        return (await self.live()).jetstream(timeout=ANSWER)

    async def do(self, what: str, work: Coroutine[Any, Any, T] | asyncio.Future[T]) -> T:
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
            raise _broken(error, what) from error
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

    # -- floors --------------------------------------------------------------------------------

    def _floor(self, group: str, place: Place) -> str:
        return f"{self._name}.floors.{group}.{place[0]}.{place[1]}"

    async def floors(self, group: str, wanted: Collection[Place]) -> dict[Place, int]:
        for topic in {topic for topic, _ in wanted}:
            await self._ensure(topic)
        found = dict(zip(wanted, await self._read([self._floor(group, place) for place in wanted]), strict=True))
        fresh = {place: 0 for place, floor in found.items() if floor is None}
        await self.commit(group, fresh)
        return {place: floor or 0 for place, floor in found.items()}

    async def _read(self, subjects: Sequence[str]) -> list[int | None]:
        """The floors noted under these subjects."""
        await self._ensure("floors")
        js, stream = await self._js(), self._stream("floors")

        async def one(subject: str) -> int | None:
            try:
                return int((await js.get_last_msg(stream, subject)).data or 0)
            except NotFoundError:
                return None

        return await self.do("asking for a group", asyncio.gather(*map(one, subjects)))

    async def commit(self, group: str, floors: Mapping[Place, int]) -> None:
        await self._ensure("floors")
        await self._publish([(self._floor(group, place), b"%d" % floor, "") for place, floor in floors.items()])

    async def standing(self, topic: str) -> dict[int, Standing]:
        info = await self._info(topic, f"{self._name}.{topic}.*")  # before the floors: they only rise
        state, self._made[topic] = info.state, str(info.created)
        pattern = f"{self._name}.floors.*.{topic}.*"
        subjects = sorted((await self._info("floors", pattern)).state.subjects or {})
        found: dict[int, dict[str, int]] = {place[1]: {} for place in places((topic,), self._partitions)}
        for subject, floor in zip(subjects, await self._read(subjects), strict=True):
            *_, group, _, partition = subject.split(".")
            own = floor if floor is not None and floor <= state.last_seq else 0  # else it is of a stream that is gone
            found.setdefault(int(partition), {})[group] = own
        counts = {int(subject.rpartition(".")[2]): count for subject, count in (state.subjects or {}).items()}
        return {
            partition: Standing(
                state.first_seq,
                {group: counts.get(partition, 0) if floor < state.last_seq else 0 for group, floor in floors.items()},
                floors,
            )
            for partition, floors in found.items()
        }

    async def release(self, topic: str, floors: Mapping[int, int]) -> None:
        js, stream = await self._js(), self._stream(topic)
        if str((await self._info(topic)).created) != self._made.get(topic):
            return  # made anew since the floors were read: they are not of these messages
        for partition, floor in floors.items():
            if floor:
                work = js.purge_stream(stream, seq=floor + 1, subject=self._subject((topic, partition)))
                await self.do("letting messages go", work)

    async def life(self) -> str:
        return str((await self._info("floors")).created)

    # -- reading -------------------------------------------------------------------------------

    async def reader(self, after: Mapping[Place, int]) -> _NatsReader:
        """One consumer per topic, or where only some partitions of it are wanted, one per partition."""
        client = await self.live()
        topics: dict[str, dict[Place, int]] = {}
        for place, position in after.items():
            topics.setdefault(place[0], {})[place] = position
        reader = _NatsReader(self, client)
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


class _Pull:
    """One consumer: what it may still send, and where it is."""

    def __init__(self, subject: str, topic: str, after: Mapping[Place, int]) -> None:
        self.subject, self.topic, self.after = subject, topic, after
        self.left, self.heard, self.count = 0, 0.0, 0
        self.inbox = ""
        self.broken = ""


class _NatsReader:
    """Asks its consumers for messages; each has an inbox, where they and the server's remarks come in."""

    def __init__(self, broker: _NatsBroker, client: Client) -> None:
        self._broker, self._client = broker, client
        self._pulls: list[_Pull] = []
        self._subscriptions: list[Any] = []
        self._items: deque[Arrival] = deque()
        self._news = asyncio.Event()

    async def add(self, js: JetStreamContext, stream: str, subject: str | None, after: Mapping[Place, int]) -> None:
        config = ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=min(after.values()) + 1,
            ack_policy=AckPolicy.NONE,
            filter_subject=subject,
            inactive_threshold=UNUSED,
            mem_storage=True,
        )
        info = await js.add_consumer(stream, config)
        pull = _Pull(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{info.name}", next(iter(after))[0], after)
        pull.inbox = self._client.new_inbox()

        async def take(message: Msg) -> None:
            self._take(pull, message)

        self._subscriptions.append(await self._client.subscribe(pull.inbox, cb=take))
        self._pulls.append(pull)

    def _take(self, pull: _Pull, message: Msg) -> None:
        pull.heard = asyncio.get_running_loop().time()
        if not message.reply:
            self._remark(pull, message)
            return
        words = message.reply.split(".")
        sequence, count = int(words[-4]), int(words[-3])
        pull.left -= 1
        if count != pull.count + 1:
            pull.broken = f"message {pull.count + 1} of a reader did not come"
        pull.count = count
        place = (pull.topic, int(message.subject.rpartition(".")[2]))
        if sequence > pull.after.get(place, 2**63):
            self._items.append(Arrival(place, sequence, message.data))
        self._news.set()

    def _remark(self, pull: _Pull, message: Msg) -> None:
        """The server has nothing, or says why it sends nothing."""
        headers = message.headers or {}
        status, text = headers.get("Status", ""), " ".join(map(str, headers.values()))
        if status in ("404", "408") or (status == "409" and "MaxBytes" in text):
            pull.left = 0
        elif status != "100":
            pull.broken = f"a reader is gone ({text.strip()})"
        self._news.set()

    async def fetch(self) -> list[Arrival]:
        now = asyncio.get_running_loop().time()
        for pull in self._pulls:
            self._check(pull, now)
            if pull.left <= 0:
                pull.left, pull.heard = PULLED, now
                wish = {"batch": PULLED, "max_bytes": PULLED_BYTES, "expires": int(PULL * 1e9)}
                work = self._client.publish(pull.subject, json.dumps(wish).encode(), pull.inbox)
                await self._broker.do("asking for messages", work)
        if not self._items:
            self._news.clear()
            try:
                async with asyncio.timeout(0.5):
                    await self._news.wait()
            except TimeoutError:
                return []
        found, self._items = list(self._items), deque()
        return found

    def _check(self, pull: _Pull, now: float) -> None:
        if not self._broker.uses(self._client):
            raise BusError("NATS: the connection broke; is it running at nats.url?")
        if pull.broken:
            raise BusError(f"NATS: {pull.broken}")
        if pull.left > 0 and now - pull.heard > 2 * PULL:
            raise BusError("NATS does not answer a reader; is it running at nats.url?")

    async def close(self) -> None:
        for subscription in self._subscriptions:
            if not self._client.is_closed and not self._client.is_draining:
                try:
                    await subscription.unsubscribe()
                except NatsError:
                    continue  # the connection went meanwhile, and with it the subscription
