"""Reading from JetStream: ephemeral pull consumers without acknowledgements, asked for more as they run dry."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Coroutine, Mapping
from typing import Any, Protocol, TypeVar

from tapewick.buses._broker import Arrival, Place
from tapewick.buses._nats_driver import (
    AckPolicy,
    Client,
    ConsumerConfig,
    DeliverPolicy,
    JetStreamContext,
    Msg,
    NatsError,
)
from tapewick.errors import BusError

__all__ = ["NatsReader"]

PULL = 5.0  # seconds a request for messages stands
PULLED = 64  # messages asked for at once
PULLED_BYTES = 4 << 20  # the same in bytes
UNUSED = 60.0  # seconds after which the server forgets a reader that asks for nothing

T = TypeVar("T")


class Link(Protocol):
    """The connection a reader lives on."""

    def uses(self, client: Client) -> bool:
        """Whether ``client`` is the connection still."""
        ...

    async def do(self, what: str, work: Coroutine[Any, Any, T]) -> T:
        """The outcome of ``work``. Raises ``BusError``."""
        ...


class _Pull:
    """One consumer: what it may still send, and where it is."""

    def __init__(self, subject: str, topic: str, after: Mapping[Place, int]) -> None:
        self.subject, self.topic, self.after = subject, topic, after
        self.left, self.heard, self.count = 0, 0.0, 0
        self.inbox = ""
        self.broken = ""


class NatsReader:
    """Asks its consumers for messages; each has an inbox, where they and the server's remarks come in."""

    def __init__(self, link: Link, client: Client) -> None:
        self._link, self._client = link, client
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
                await self._link.do("asking for messages", work)
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
        if not self._link.uses(self._client):
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
