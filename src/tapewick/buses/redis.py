"""Redis Streams: a stream per partition. A group's floor is the last-delivered id of a consumer group.

Entries are read by position (XREAD), never claimed by consumers, so nothing is stuck with a dead one;
the group is there for its floor and for ``XINFO GROUPS``. Of topics that engines share, what all groups have
acknowledged is trimmed, and ``maxlen`` guards the server's memory; of the others, what is older than
``keep`` seconds. A key with a random value tells when the server was emptied.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from tapewick.buses._broker import NO_TLS, SHARED, Arrival, Parcel, Place, Standing, Tls, places
from tapewick.buses._network import NetworkBus
from tapewick.clock import Clock
from tapewick.errors import BusError, BusRefused, ConfigError, MissingExtra

try:
    from redis.asyncio import Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError
except ImportError as error:
    raise MissingExtra("the Redis bus (setting bus.kind)", "redis") from error

__all__ = ["RedisBus"]

BLOCK = 1000  # ms a read waits for news
COUNT = 32  # messages a read takes of each stream at most
FIELD = b"m"  # the only field of an entry
ANNOTATED = " of pipeline caused error: "  # before it the driver has put the command, with a message of ours
NO_KEY = "requires the key to exist"  # what XGROUP says of a stream that is gone


class RedisBus(NetworkBus):
    """A bus on the Redis server at ``url`` (``redis[s]://[user:password@]host:port/db``).

    ``name`` begins all its keys. ``maxlen``: messages kept of a partition at most, acknowledged or not.
    ``keep``: seconds for which messages are kept that everybody reads.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str = "tapewick",
        partitions: int = 16,
        max_bytes: int = 16 << 20,
        maxlen: int = 100_000,
        keep: float = 30,
        tls: Tls = NO_TLS,
        clock: Clock | None = None,
    ) -> None:
        broker = _RedisBroker(url, name=name, partitions=partitions, maxlen=maxlen, keep=keep, tls=tls)
        super().__init__(broker, partitions=partitions, max_bytes=max_bytes, clock=clock)


def _number(id: bytes) -> int:
    """An entry's id as a position: milliseconds, then a count."""
    ms, _, count = id.partition(b"-")
    return int(ms) << 64 | int(count or 0)


def _id(position: int) -> str:
    return f"{position >> 64}-{position & (2**64 - 1)}"


def _broken(error: Exception, what: str) -> BusError:
    """The driver's error as ours, with what to do."""
    text = str(error)
    if ANNOTATED in text:
        text = text.rpartition(ANNOTATED)[2].strip("(),'\"")
    if isinstance(error, AuthenticationError | NoPermissionError):
        return BusRefused(f"Redis refuses {what}: {text}; check user and password in redis.url and the user's rights")
    if isinstance(error, ResponseError):
        if "maxmemory" in text:
            return BusError(f"Redis is out of memory while {what}: raise its maxmemory or lower redis.maxlen")
        if text.startswith("WRONGTYPE"):
            return BusRefused(f"a key of the bus holds something else ({text}): choose another bus.name")
        if "unknown command" in text.lower():
            return BusRefused(f"{text}: the bus needs Redis 7 or later")
        return BusError(f"Redis refuses {what}: {text}")
    return BusError(f"Redis does not answer while {what} ({error}); is it running at redis.url?")


class _RedisBroker:
    kind = "redis"

    def __init__(self, url: str, *, name: str, partitions: int, maxlen: int, keep: float, tls: Tls) -> None:
        self._name, self._partitions, self._maxlen, self._keep = name, partitions, maxlen, keep
        self._newest = 0  # the server's time (ms) of the last message sent
        options: dict[str, Any] = {"socket_connect_timeout": 5, "socket_timeout": 10, "retry": Retry(NoBackoff(), 0)}
        if url.startswith("rediss://"):
            files = {"ssl_ca_certs": tls.ca, "ssl_certfile": tls.cert, "ssl_keyfile": tls.key}
            options |= {key: value for key, value in files.items() if value}
        elif any(tls):
            raise ConfigError("redis.tls_* are set, but redis.url does not begin with rediss://")
        try:
            self._redis = Redis.from_url(url, **options)
        except ValueError as error:
            raise ConfigError(f"redis.url is no Redis address: {error}") from error

    def _key(self, place: Place) -> str:
        return f"{self._name}:{place[0]}:{place[1]}"

    async def _call(
        self, what: str, *commands: Sequence[Any], tolerate: Sequence[str] = (), whole: bool = False
    ) -> list[Any]:
        """Answers of ``commands``, sent together; None for an error whose text holds one of ``tolerate``. ``whole``:
        a server that refuses one of them for want of memory, disk or replicas does none."""
        pipe = self._redis.pipeline(transaction=whole)
        for command in commands:
            pipe.execute_command(*command)
        try:
            answers = await pipe.execute(raise_on_error=False)
        except (RedisError, OSError) as error:
            raise _broken(error, what) from error
        for at, answer in enumerate(answers):
            if isinstance(answer, ResponseError) and any(text in str(answer) for text in tolerate):
                answers[at] = None
            elif isinstance(answer, Exception):
                raise _broken(answer, what) from answer
        return answers

    async def connect(self) -> None:
        await self._call("connecting", ("PING",))

    async def close(self) -> None:
        await self._redis.aclose()
        await asyncio.sleep(0)  # connections whose reads were cancelled close with the next turn of the loop

    async def send(self, parcels: Sequence[Parcel]) -> list[int]:
        trim: dict[bool, tuple[Any, ...]] = {
            True: ("MAXLEN", "~", self._maxlen),
            False: ("MINID", "~", max(0, self._newest - int(self._keep * 1000))),
        }
        adds = [
            ("XADD", self._key(one.place), *trim[one.place[0] in SHARED], "*", FIELD, one.payload) for one in parcels
        ]
        positions = [_number(id) for id in await self._call("adding messages", *adds, whole=True)]
        self._newest = max(positions, default=0) >> 64
        return positions

    async def ends(self, wanted: Collection[Place]) -> dict[Place, int]:
        asks = [("XINFO", "STREAM", self._key(place)) for place in wanted]
        answers = await self._call("asking for streams", *asks, tolerate=("no such key",))
        return {
            place: 0 if answer is None else _number(answer["last-generated-id"])
            for place, answer in zip(wanted, map(_fields, answers), strict=True)
        }

    async def births(self, topics: Collection[str]) -> Mapping[str, str]:
        return {}  # positions are times

    async def floors(self, group: str, wanted: Collection[Place]) -> dict[Place, int]:
        makes = [("XGROUP", "CREATE", self._key(place), group, "0", "MKSTREAM") for place in wanted]
        await self._call("making a group", *makes, tolerate=("BUSYGROUP",))
        asks = [("XINFO", "GROUPS", self._key(place)) for place in wanted]
        found = {}
        for place, answer in zip(wanted, await self._call("asking for groups", *asks), strict=True):
            ids = {one["name"]: one["last-delivered-id"] for one in map(_fields, answer) if one is not None}
            found[place] = _number(ids[group.encode()])
        return found

    async def commit(self, group: str, floors: Mapping[Place, int]) -> None:
        sets = [("XGROUP", "SETID", self._key(place), group, _id(floor)) for place, floor in floors.items()]
        answers = await self._call("noting a group's floor", *sets, tolerate=("NOGROUP", NO_KEY))
        gone = [place for place, answer in zip(floors, answers, strict=True) if answer is None]
        makes = [("XGROUP", "CREATE", self._key(place), group, _id(floors[place]), "MKSTREAM") for place in gone]
        if makes:
            await self._call("making a group", *makes, tolerate=("BUSYGROUP",))

    async def standing(self, topic: str) -> dict[int, Standing]:
        wanted = places((topic,), self._partitions)
        asks: list[tuple[str, ...]] = [
            ("XINFO", kind, self._key(place)) for place in wanted for kind in ("STREAM", "GROUPS")
        ]
        asks += [("XLEN", self._key(place)) for place in wanted]
        answers = await self._call("asking for groups", *asks, tolerate=("no such key",))
        found = {}
        for at, place in enumerate(wanted):
            stream, length = _fields(answers[2 * at]), answers[2 * len(wanted) + at]
            groups = [one for one in map(_fields, answers[2 * at + 1] or ()) if one is not None]
            floors = {one["name"].decode(): _number(one["last-delivered-id"]) for one in groups}
            first = 2**127 if stream is None else _number(stream["last-generated-id"]) + 1
            if stream is not None and stream["first-entry"]:
                first = _number(stream["first-entry"][0])
            waiting = {one["name"].decode(): length if one.get("lag") is None else one["lag"] for one in groups}
            beyond = {group for group, floor in floors.items() if first > floor}
            if stream is None or not length:
                beyond = set()
            elif length < self._maxlen:  # then nothing was trimmed behind a group that has read nothing yet
                beyond = {group for group in beyond if floors[group]}
            found[place[1]] = Standing(first, waiting, floors, beyond)
        return found

    async def release(self, topic: str, floors: Mapping[int, int]) -> None:
        """Each partition keeps the message at the lowest floor: where that is gone, ``maxlen`` took unread ones."""
        trims = [("XTRIM", self._key((topic, at)), "MINID", _id(floor)) for at, floor in floors.items() if floor]
        if trims:
            await self._call("trimming", *trims)

    async def reader(self, after: Mapping[Place, int]) -> _RedisReader:
        return _RedisReader(self._redis, {self._key(place): place for place in after}, after)

    async def life(self) -> str:
        key = f"{self._name}:life"
        (_, answer) = await self._call(
            "asking whether it was emptied", ("SET", key, secrets.token_hex(8), "NX"), ("GET", key)
        )
        return str(answer)


def _fields(answer: Any) -> dict[str, Any] | None:
    """An XINFO answer, a map or a flat list, by name."""
    if answer is None:
        return None
    pairs = answer.items() if isinstance(answer, dict) else _pairs(answer)
    return {(name.decode() if isinstance(name, bytes) else name): value for name, value in pairs}


def _pairs(flat: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    return zip(flat[::2], flat[1::2], strict=True)


class _RedisReader:
    """One blocking XREAD after the other over all streams."""

    def __init__(self, redis: Redis, names: dict[str, Place], after: Mapping[Place, int]) -> None:
        self._redis = redis
        self._places = {key.encode(): place for key, place in names.items()}
        self._after = {key: _id(after[place]).encode() for key, place in zip(self._places, names.values(), strict=True)}

    async def fetch(self) -> list[Arrival]:
        try:
            answer: Any = await self._redis.execute_command(  # type: ignore[no-untyped-call]
                "XREAD", "COUNT", COUNT, "BLOCK", BLOCK, "STREAMS", *self._after, *self._after.values()
            )
        except (RedisError, OSError) as error:
            raise _broken(error, "reading") from error
        found = []
        streams = answer.items() if isinstance(answer, dict) else answer or ()
        for key, entries in streams:
            for id, values in entries:
                content = (values if isinstance(values, dict) else dict(_pairs(values))).get(FIELD, b"")
                found.append(Arrival(self._places[key], _number(id), content))
            if entries:
                self._after[key] = entries[-1][0]
        return found

    async def close(self) -> None:
        return None
