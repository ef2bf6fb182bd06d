"""A Kafka cluster as ``Broker``: topics, positions and groups. The driver blocks, so the work is done in threads."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from functools import partial
from typing import Any, TypeVar

from tapewick.buses._broker import RECENT, SHARED, Parcel, Place, Standing, places
from tapewick.buses._kafka_driver import (
    ANSWER,
    AdminClient,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    NewTopic,
    OffsetSpec,
    Producer,
    TopicPartition,
    elected,
    failure,
    quiet,
)
from tapewick.buses._kafka_reader import KafkaReader
from tapewick.errors import BusRefused, ConfigError

__all__ = ["KafkaBroker"]

MESSAGE = 2 << 20  # bytes of a message at most; ours are cut to a quarter
GROUPS = 5.0  # seconds for which the list of groups is good
EARLIEST, LATEST = OffsetSpec.earliest(), OffsetSpec.latest()  # type: ignore[no-untyped-call]

T = TypeVar("T")


class KafkaBroker:
    """``Broker`` on the cluster that ``options``, those of the driver, name."""

    kind = "kafka"

    def __init__(
        self,
        options: Mapping[str, Any],
        *,
        name: str,
        partitions: int,
        replication: int,
        retention: float,
        max_bytes: int,
    ) -> None:
        self._options = {
            **options,
            "error_cb": self._failed,
            "logger": quiet,
            "reconnect.backoff.ms": 100,
            "reconnect.backoff.max.ms": 5000,
            "socket.keepalive.enable": True,
        }
        self._name, self._partitions, self._max_bytes = name, partitions, max_bytes
        self._replication, self._retention = replication, retention
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="kafka")
        self._admin: AdminClient | None = None
        self._producer: Producer | None = None
        self._keepers: dict[str, Consumer] = {}
        self._making = threading.Lock()
        self._topics: set[str] = set()
        self._groups: tuple[float, list[str]] = (0.0, [])
        self._why: KafkaError | None = None
        self.outages = 0  # times the driver found no broker reachable

    def _failed(self, error: KafkaError) -> None:
        """Called by the driver, in any thread."""
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self.outages += 1
        else:
            self._why = error

    async def _do(self, what: str, work: Callable[[], T]) -> T:
        """Run ``work``, which blocks, in a thread."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except KafkaException as error:
            cause = error.args[0] if error.args and isinstance(error.args[0], KafkaError) else None
            if self._admin is not None:
                self._admin.poll(0)  # the driver tells why only when asked
            raise failure(self._why or cause, what) from error
        except FutureTimeout as error:
            raise failure(None, what) from error

    # -- connection and topics -----------------------------------------------------------------

    async def connect(self) -> None:
        try:
            self._admin = AdminClient(self._options)
        except KafkaException as error:
            raise ConfigError(f"the settings of section kafka cannot be used: {error.args[0].str()}") from error
        await self.life()

    async def close(self) -> None:
        def end() -> None:
            for keeper in self._keepers.values():
                keeper.close()
            if self._producer is not None:
                self._producer.purge()
                self._producer.flush(1)

        await asyncio.get_running_loop().run_in_executor(self._threads, end)
        self._threads.shutdown(wait=False)
        self._producer = self._admin = None

    async def life(self) -> str:
        """The cluster's id."""
        self._why = None
        told = await self._do("asking for the cluster", lambda: self._client().list_topics(timeout=ANSWER))
        return str(told.cluster_id)

    def _client(self) -> AdminClient:
        """The administrative client, held by whoever waits for its answers: they never come once it is gone."""
        if self._admin is None:
            raise KafkaException(KafkaError(KafkaError._DESTROY))
        return self._admin

    def _topic(self, topic: str) -> str:
        return f"{self._name}.{topic}"

    async def _ensure(self, topics: Collection[str]) -> None:
        """Create topics where there are none. Raises ``BusRefused`` where one has another number of partitions."""
        for topic in sorted(set(topics) - self._topics):
            wanted = len(places((topic,), self._partitions))
            found = await self._do("making a topic", partial(self._make, topic, wanted))
            if found != wanted:
                raise BusRefused(
                    f"the topic {self._topic(topic)} has {found} partitions, but engine.partitions is "
                    f"{self._partitions}: choose another bus.name, for a changed number breaks the order of trades"
                )
            self._topics.add(topic)

    def _make(self, topic: str, partitions: int) -> int:
        """Create a topic and wait until the cluster knows it; its partitions."""
        admin = self._client()
        name, kept = self._topic(topic), self._retention if topic in SHARED else min(self._retention, RECENT)
        config = {
            "retention.ms": str(int(kept * 1000)),
            "segment.ms": str(int(kept * 1000)),  # only whole segments are deleted
            "max.message.bytes": str(MESSAGE),
            "cleanup.policy": "delete",
        }
        new = NewTopic(name, num_partitions=partitions, replication_factor=self._replication, config=config)
        deadline = time.monotonic() + ANSWER
        while True:
            known = admin.list_topics(name, timeout=ANSWER).topics.get(name)
            if known is not None and known.error is None and known.partitions:
                return len(known.partitions)
            try:
                admin.create_topics([new], operation_timeout=ANSWER, request_timeout=ANSWER)[name].result(2 * ANSWER)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS or time.monotonic() > deadline:
                    raise
            time.sleep(0.02)

    def _partition(self, place: Place, offset: int = -1001) -> TopicPartition:
        return TopicPartition(self._topic(place[0]), place[1], offset)

    # -- sending -------------------------------------------------------------------------------

    async def send(self, parcels: Sequence[Parcel]) -> list[int]:
        await self._ensure({one.place[0] for one in parcels})
        return await self._do("adding messages", partial(self._send, parcels))

    def _send(self, parcels: Sequence[Parcel]) -> list[int]:
        """Hand all to the driver and wait for every confirmation. A driver that failed is given up."""
        producer = self._producer
        if producer is None:
            producer = self._producer = Producer(
                {
                    **self._options,
                    "enable.idempotence": True,
                    "acks": "all",
                    "linger.ms": 0,
                    "message.timeout.ms": int(ANSWER * 1000),
                    "message.max.bytes": MESSAGE,
                }
            )
        offsets: dict[int, int] = {}
        errors: list[KafkaError] = []

        def told(at: int, error: KafkaError | None, message: Message) -> None:
            if error is not None:
                errors.append(error)
            else:
                offsets[at] = message.offset() or 0

        try:
            for at, one in enumerate(parcels):
                topic, partition = self._topic(one.place[0]), one.place[1]
                producer.produce(topic, one.payload, partition=partition, on_delivery=partial(told, at))
            producer.flush(2 * ANSWER)
        except (BufferError, KafkaException) as error:
            cause = error.args[0] if isinstance(error, KafkaException) else KafkaError(KafkaError._QUEUE_FULL)
            errors.append(cause)
        if len(offsets) < len(parcels):
            producer.purge()
            producer.flush(1)
            self._producer = None
            raise KafkaException(errors[0] if errors else KafkaError(KafkaError._TIMED_OUT))
        return [offsets[at] + 1 for at in range(len(parcels))]

    # -- positions -----------------------------------------------------------------------------

    async def ends(self, wanted: Collection[Place]) -> dict[Place, int]:
        await self._ensure({topic for topic, _ in wanted})
        return await self._offsets(wanted, LATEST)

    async def _offsets(self, wanted: Collection[Place], spec: Any) -> dict[Place, int]:
        asks = {self._partition(place): spec for place in wanted}

        def once() -> dict[Place, int]:
            admin, cut = self._client(), len(self._name) + 1
            answers = admin.list_offsets(asks, request_timeout=ANSWER)
            return {
                (one.topic[cut:], one.partition): answer.result(2 * ANSWER).offset for one, answer in answers.items()
            }

        return await self._do("asking for offsets", partial(elected, once))

    def _group(self, group: str) -> str:
        return f"{self._name}.{group}"

    async def births(self, topics: Collection[str]) -> Mapping[str, str]:
        return {}  # a topic made anew shows by its lower offsets only

    async def floors(self, group: str, wanted: Collection[Place]) -> dict[Place, int]:
        await self._ensure({topic for topic, _ in wanted})
        told = await self._do("asking for a group", partial(self._committed, group, list(wanted)))
        found = {place: told.get(place, -1) for place in wanted}
        if fresh := [place for place, offset in found.items() if offset < 0]:
            first = await self._offsets(fresh, EARLIEST)
            await self.commit(group, first)
            found |= first
        self._groups = (0.0, sorted({*self._groups[1], group}))
        return found

    async def commit(self, group: str, floors: Mapping[Place, int]) -> None:
        if floors:
            offsets = [self._partition(place, floor) for place, floor in floors.items()]
            await self._do("committing offsets", partial(self._commit, group, offsets))

    def _commit(self, group: str, offsets: list[TopicPartition]) -> None:
        elected(partial(self._keeper(group).commit, offsets=offsets, asynchronous=False))

    def _keeper(self, group: str) -> Consumer:
        """What reads and commits a group's offsets, and nothing else. The administrative client could, but where a
        group's coordinator is being chosen it ends the process (librdkafka 2.16.0, ``eonce->refcnt > 0``)."""
        with self._making:
            if group not in self._keepers:
                own = {"group.id": self._group(group), "enable.auto.commit": False, "session.timeout.ms": 6000}
                self._keepers[group] = Consumer({**self._options, **own})
            return self._keepers[group]

    def _committed(self, group: str, wanted: Sequence[Place]) -> dict[Place, int]:
        """A group's offsets, where it has any."""
        cut = len(self._name) + 1
        asked = [self._partition(place) for place in wanted]
        found = elected(partial(self._keeper(group).committed, asked, timeout=ANSWER))
        return {(one.topic[cut:], one.partition): one.offset for one in found if one.offset >= 0}

    async def standing(self, topic: str) -> dict[int, Standing]:
        wanted = places((topic,), self._partitions)
        first = await self._offsets(wanted, EARLIEST)  # before the floors: they only rise
        last = await self._offsets(wanted, LATEST)
        floors = await self._do("asking for groups", partial(self._floors, wanted))
        found = {}
        for place in wanted:
            own = {group: offsets[place[1]] for group, offsets in floors.items() if place[1] in offsets}
            waiting = {group: max(0, last[place] - max(floor, first[place])) for group, floor in own.items()}
            missed = {group for group, floor in own.items() if floor < first[place]}
            found[place[1]] = Standing(first[place] + 1, waiting, own, missed)
        return found

    def _floors(self, wanted: Sequence[Place]) -> dict[str, dict[int, int]]:
        """Offsets by group and partition of one topic, of every group that has any."""
        admin, (asked, groups) = self._client(), self._groups
        if time.monotonic() - asked > GROUPS or not asked:
            listed = admin.list_consumer_groups(request_timeout=ANSWER).result(2 * ANSWER).valid
            prefix = f"{self._name}."
            groups = sorted(
                {*groups, *(one.group_id[len(prefix) :] for one in listed if one.group_id.startswith(prefix))}
            )
            self._groups = (time.monotonic(), groups)
        found = {}
        for group in groups:
            offsets = self._committed(group, wanted)
            if offsets:
                found[group] = {place[1]: offset for place, offset in offsets.items()}
        return found

    async def release(self, topic: str, floors: Mapping[int, int]) -> None:
        """Nothing: the topic's retention lets messages go."""

    # -- reading -------------------------------------------------------------------------------

    async def reader(self, after: Mapping[Place, int]) -> KafkaReader:
        await self._ensure({topic for topic, _ in after})
        consumer = Consumer(
            {
                **self._options,
                "group.id": f"{self._name}-readers",  # demanded, but nothing is committed under it
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 100,
                "fetch.error.backoff.ms": 50,
                "queued.max.messages.kbytes": max(1024, self._max_bytes >> 10),
            }
        )
        consumer.assign([self._partition(place, position) for place, position in after.items()])
        return KafkaReader(consumer, len(self._name) + 1, lambda: self.outages)
