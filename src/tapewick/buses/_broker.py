"""What a message server must be able to do for ``NetworkBus``: six verbs over partitions with positions.

A position is an integer that rises with every message of a partition; 0 lies before the first one. A
group is nothing but a floor per partition, the position up to which all is acknowledged, kept on the
server: whoever takes a partition over begins behind the floor, so order is kept and nothing waits for a
dead reader's messages to time out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeAlias

__all__ = ["NO_TLS", "RECENT", "SHARED", "Arrival", "Broker", "Parcel", "Place", "Reader", "Standing", "Tls", "places"]

SHARED = frozenset({"trades", "repairs"})
"""Topics whose partitions engines share; every other topic is read whole by everybody and has one partition."""

RECENT = 600.0
"""Seconds for which other topics are kept at most: readers begin with what is new, and fill from the store."""

Place: TypeAlias = tuple[str, int]
"""A topic and one of its partitions."""


class Tls(NamedTuple):
    """PEM files of encrypted connections: who signed the server's certificate, and our own to show; empty: the
    system's authorities, and none."""

    ca: str = ""
    cert: str = ""
    key: str = ""


NO_TLS = Tls()


class Parcel(NamedTuple):
    """An encoded message on its way out; ``id`` is the same whenever it is sent again."""

    place: Place
    id: str
    payload: bytes


class Arrival(NamedTuple):
    """An encoded message that came in."""

    place: Place
    position: int
    payload: bytes


class Standing(NamedTuple):
    """One partition: position of the oldest message kept (of the next one if none is), messages kept
    behind each group's floor, the floors, and the groups behind whose floor messages were discarded."""

    first: int
    waiting: Mapping[str, int]
    floors: Mapping[str, int]
    missed: Collection[str] = ()


class Reader(Protocol):
    """Reads on from the positions it was made with."""

    async def fetch(self) -> Sequence[Arrival]:
        """What has come, in order within a partition; waits a second at most. Raises ``BusError``."""
        ...

    async def close(self) -> None: ...


class Broker(Protocol):
    """One kind of server. Every method raises ``BusError`` saying what to do, ``BusRefused`` where trying
    again does not help; topics are created when first named."""

    kind: str

    async def connect(self) -> None: ...
    async def close(self) -> None: ...

    async def send(self, parcels: Sequence[Parcel]) -> list[int]:
        """Positions, once the server has confirmed all. After an error some may have been stored."""
        ...

    async def ends(self, wanted: Collection[Place]) -> dict[Place, int]:
        """Position of the newest message of each."""
        ...

    async def births(self, topics: Collection[str]) -> Mapping[str, str]:
        """By topic, a name that changes when it is made anew and its positions begin again; none where none is told."""
        ...

    async def floors(self, group: str, wanted: Collection[Place]) -> dict[Place, int]:
        """The group's floors; a new group begins with what the server still keeps."""
        ...

    async def commit(self, group: str, floors: Mapping[Place, int]) -> None:
        """Move floors of a group up."""
        ...

    async def standing(self, topic: str) -> dict[int, Standing]:
        """Every partition of ``topic``."""
        ...

    async def release(self, topic: str, floors: Mapping[int, int]) -> None:
        """What lies at or below ``floors`` is wanted by nobody any more."""
        ...

    async def reader(self, after: Mapping[Place, int]) -> Reader:
        """Reads what comes after these positions."""
        ...

    async def life(self) -> str:
        """A name that changes when the server loses what it keeps."""
        ...


def places(topics: Collection[str], partitions: int, chosen: Collection[int] | None = None) -> list[Place]:
    """Every partition of ``topics``, of shared ones only those ``chosen``."""
    return [
        (topic, number)
        for topic in topics
        for number in (sorted(chosen if chosen is not None else range(partitions)) if topic in SHARED else (0,))
    ]
