"""The vocabulary: instruments, trade batches, candle rows and the messages that carry them.

Times are int64 UTC ns. Prices and sizes are int64 mantissas at the instrument's
``price_scale`` / ``size_scale``; candle sums are 128-bit, split into a signed high and an
unsigned low word. Trades travel as columns, candles as rows of the ``CANDLE`` dtype.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Literal, NamedTuple, Self, TypeAlias
from zlib import crc32

import msgspec
import numpy as np
import numpy.typing as npt

from tapewick.scans import Announcement

__all__ = [
    "BookState",
    "BookUpdate",
    "CANDLE",
    "Candles",
    "CandleBatch",
    "Change",
    "Event",
    "Floor",
    "Gap",
    "Head",
    "Health",
    "Instrument",
    "Lease",
    "Message",
    "NO_END",
    "NO_TIME",
    "Origin",
    "Quote",
    "Reason",
    "Refused",
    "Side",
    "State",
    "TapeCommit",
    "TapeState",
    "TradeBatch",
    "Wanted",
    "Watch",
    "empty_candles",
    "partition_of",
    "position",
]

I64: TypeAlias = npt.NDArray[np.int64]
I32: TypeAlias = npt.NDArray[np.int32]
I8: TypeAlias = npt.NDArray[np.int8]
Candles: TypeAlias = npt.NDArray[np.void]

NO_TIME = -(2**63)
"""Stands for "no known trade" where a time is expected."""
NO_END = 2**63 - 1
"""Stands for "no known trade" where a gap ends."""


class Side(IntEnum):
    """The aggressor (taker) of a trade."""

    SELL = -1
    UNKNOWN = 0
    BUY = 1


class State(IntEnum):
    """Life cycle of a candle: open, closed by the watermark, final once proven complete."""

    OPEN = 0
    CLOSED = 1
    FINAL = 2


class Change(IntEnum):
    """What the commit that wrote a row did to it; ``OPEN`` rows are news on the provisional lane only."""

    OPEN = 0
    CLOSED = 1
    FINAL = 2
    REVISED = 3


class Reason(IntEnum):
    """Why a closed candle changed. ``PROOF``: only its completeness was settled."""

    PROOF = 0
    LATE = 1
    REPAIR = 2
    CORRECTION = 3
    REORG = 4


class Origin(IntEnum):
    """Whether a candle was folded from the tape or imported as the venue's own bar."""

    TAPE = 0
    IMPORT = 1


class Instrument(msgspec.Struct, frozen=True, kw_only=True):
    """One tradable thing at one venue; ``id`` is ``venue:symbol`` with the venue's own symbol.

    ``id_kind``: ``contiguous`` trade ids prove completeness, ``unique`` ones only identify.
    ``granularity``: the tape holds raw trades or the venue's aggregates, fixed for its life.
    """

    id: str
    venue: str
    symbol: str
    base: str = ""
    quote: str = ""
    price_scale: int = 8
    size_scale: int = 8
    status: str = "trading"
    id_kind: Literal["contiguous", "unique"] = "contiguous"
    granularity: Literal["raw", "agg"] = "raw"

    @property
    def simulated(self) -> bool:
        """Whether its trades are invented by the simulator."""
        return self.venue == "sim"


@dataclass(slots=True, kw_only=True)
class TradeBatch:
    """Trades of one instrument as columns of equal length n (n may be 0: a clock tick).

    ``trade_id`` is the highest and ``first_id`` the lowest venue id a record stands for,
    ``count`` how many ids; a raw trade is itself and 1. ``covers`` lists the closed id ranges the
    source vouches for (None: the records' own). ``clock`` is the source's time in ns, which
    closes candles of quiet instruments (0: the source has none). ``seq`` is set once the
    engine has numbered the trades; ``epoch`` then names the tape they belong to. ``late`` is said of all;
    a batch read from a store may hold both kinds: ``late_rows`` then marks the late ones. ``key``, shape (n, 2): the
    two words of a 128-bit hash that names each trade where ids are ``unique`` (None: ``trade_id`` is its name).
    """

    instrument: str
    trade_id: I64
    first_id: I64
    count: I32
    ts_event: I64
    ts_recv: I64
    price: I64
    size: I64
    side: I8
    price_scale: int
    size_scale: int
    covers: tuple[tuple[int, int], ...] | None = None
    late: bool = False
    clock: int = 0
    source: str = ""
    seq: I64 | None = None
    epoch: str = ""
    late_rows: npt.NDArray[np.bool_] | None = None
    key: I64 | None = None

    def __len__(self) -> int:
        return len(self.trade_id)

    @property
    def nbytes(self) -> int:
        """Memory the columns hold, for byte-bounded queues."""
        return 256 + (61 if self.key is None else 77) * len(self.trade_id)

    def select(self, rows: I64) -> TradeBatch:
        """The same batch with only ``rows`` (indices), in their order."""
        return replace(
            self,
            trade_id=self.trade_id[rows],
            first_id=self.first_id[rows],
            count=self.count[rows],
            ts_event=self.ts_event[rows],
            ts_recv=self.ts_recv[rows],
            price=self.price[rows],
            size=self.size[rows],
            side=self.side[rows],
            seq=None if self.seq is None else self.seq[rows],
            late_rows=None if self.late_rows is None else self.late_rows[rows],
            key=None if self.key is None else self.key[rows],
        )

    @property
    def names(self) -> I64:
        """What tells these trades apart where ids are ``unique``: shape (n, 2)."""
        if self.key is not None:
            return self.key
        return np.column_stack((self.trade_id, np.zeros(len(self.trade_id), np.int64)))

    @classmethod
    def empty(cls, instrument: str, *, clock: int = 0, source: str = "") -> TradeBatch:
        """A batch without trades; with ``clock`` it is a tick of the source's clock."""
        none = np.empty(0, np.int64)
        return cls(
            instrument=instrument,
            trade_id=none,
            first_id=none,
            count=np.empty(0, np.int32),
            ts_event=none,
            ts_recv=none,
            price=none,
            size=none,
            side=np.empty(0, np.int8),
            price_scale=0,
            size_scale=0,
            clock=clock,
            source=source,
        )


CANDLE = np.dtype(
    [
        ("open_time", "<i8"),
        ("open", "<i8"),
        ("high", "<i8"),
        ("low", "<i8"),
        ("close", "<i8"),
        ("volume_lo", "<u8"),
        ("volume_hi", "<i8"),
        ("quote_volume_lo", "<u8"),
        ("quote_volume_hi", "<i8"),
        ("taker_buy_volume_lo", "<u8"),
        ("taker_buy_volume_hi", "<i8"),
        ("taker_buy_quote_volume_lo", "<u8"),
        ("taker_buy_quote_volume_hi", "<i8"),
        ("trades", "<i8"),
        ("first_id", "<i8"),
        ("last_id", "<i8"),
        ("first_ts", "<i8"),
        ("last_ts", "<i8"),
        ("first_key", "<i8"),
        ("last_seq", "<i8"),
        ("pos", "<i8"),
        ("number", "<i4"),
        ("tf", "<i4"),
        ("rev", "<i4"),
        ("state", "i1"),
        ("complete", "i1"),
        ("origin", "i1"),
        ("filled", "i1"),
        ("change", "i1"),
        ("reason", "i1"),
        ("reserved", "V6"),
    ]
)
"""One candle: 192 packed bytes, the same layout in numpy, C++ and stores.

The open key is ``(first_ts, first_key)``, the close key ``(last_ts, last_id)``; ``first_key`` is the
``trade_id`` of the first record. ``tf`` is ``Timeframe.index``, ``number`` the store's number of
the instrument, ``complete`` 1, 0 or -1 (cannot be proven). Volumes have ``size_scale`` digits,
quote volumes ``price_scale + size_scale``.
"""


def empty_candles() -> Candles:
    """A CANDLE array of length 0."""
    return np.empty(0, CANDLE)


@dataclass(slots=True, kw_only=True)
class CandleBatch:
    """Candle rows of one instrument.

    Durable rows carry ``pos`` and were committed. Provisional rows (``provisional``) are
    stored rows plus pending trades: the newest value only, superseded after a crash.
    """

    instrument: str
    rows: Candles
    price_scale: int
    size_scale: int
    provisional: bool = False
    epoch: str = ""
    pos: int = 0

    @property
    def nbytes(self) -> int:
        """Memory the rows hold, for byte-bounded queues."""
        return 256 + self.rows.nbytes


class Floor(NamedTuple):
    """What a store has let go of by age: the rows of one kind that began before ``time`` (ns), of which the newest
    change was ``offset`` (``pos`` of candles, ``seq`` of trades). Nothing, as long as ``offset`` is 0."""

    time: int = NO_TIME
    offset: int = 0


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """How far an instrument's tape has been committed: last ``seq``, last ``pos``, watermark (ns).

    The scales are those of the rows read with it.
    """

    instrument: str
    epoch: str
    seq: int
    pos: int
    watermark: int
    price_scale: int
    size_scale: int

    @property
    def nbytes(self) -> int:
        """A bound on what one takes in a queue."""
        return 128


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Closed id ranges an instrument's tape lacks and asks its venue for.

    ``since``: the time (ns) of the trade before each range, ``NO_TIME`` where none is known; empty: of none.
    """

    instrument: str
    ranges: tuple[tuple[int, int], ...]
    since: tuple[int, ...] = ()

    @property
    def nbytes(self) -> int:
        """What the ranges take in a queue."""
        return 128 + 24 * len(self.ranges)


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """A hole in the tape: ids strictly between ``left_id`` and ``right_id`` are missing.

    ``left_ts`` / ``right_ts`` (ns) are the times of the trades on either side, ``NO_TIME`` / ``NO_END`` where ids
    below or above all that is covered are wanted. ``attempts``: failed ones in a row. As a message of the
    repair lane: work on it began (``repairing``), or an attempt failed (``open``).
    """

    instrument: str
    left_id: int
    right_id: int
    left_ts: int
    right_ts: int
    reason: str = "stream"
    state: Literal["open", "repairing", "closed", "unrepairable"] = "open"
    attempts: int = 0

    @property
    def times_ms(self) -> tuple[int | None, int | None]:
        """The times on either side in ms, None where no trade is known there."""
        left, right = self.left_ts, self.right_ts
        return (
            None if left in (NO_TIME, NO_END) else left // 1_000_000,
            None if right in (NO_TIME, NO_END) else right // 1_000_000,
        )

    @property
    def nbytes(self) -> int:
        """A bound on what one takes in a queue."""
        return 256


class Watch(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody wants an instrument to be collected from now on, or no longer; the store holds all that are."""

    instrument: str
    wanted: bool = True

    @property
    def nbytes(self) -> int:
        """A bound on what one takes in a queue."""
        return 128


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """What a source says of its connection: ``connected``, ``disconnected``, ``stale`` or ``refused``.

    ``collector`` names the process whose source it is, where several may collect the same; it says its last word
    again every few seconds.
    """

    source: str
    state: Literal["connected", "disconnected", "stale", "refused"]
    ts: int
    detail: str = ""
    instrument: str = ""
    collector: str = ""

    @property
    def nbytes(self) -> int:
        """What one takes in a queue, its detail included."""
        return 128 + len(self.detail)


BookState: TypeAlias = Literal["syncing", "live", "stale"]


@dataclass(slots=True, kw_only=True)
class BookUpdate:
    """One step of an order book: changed levels, the whole book (``snapshot``), or only a change of ``state``.

    ``run`` names one synchronisation run of one collector; inside it ``seq`` rises by one per update
    and ``prev_seq`` is the one before. ``first_id`` / ``last_id`` are the venue's update ids. Level
    columns hold mantissas, best level first in a snapshot; size 0 removes a level.
    ``detail`` says why a book is not ``live``.
    """

    instrument: str
    run: str
    prev_seq: int
    seq: int
    state: BookState
    snapshot: bool
    first_id: int
    last_id: int
    ts_event: int
    ts_recv: int
    bid_price: I64
    bid_size: I64
    ask_price: I64
    ask_size: I64
    price_scale: int
    size_scale: int
    source: str = ""
    detail: str = ""

    @property
    def nbytes(self) -> int:
        """What the levels take in a queue."""
        return 384 + 16 * (len(self.bid_price) + len(self.ask_price))


class Quote(msgspec.Struct, frozen=True, kw_only=True):
    """Best bid and ask as the venue announced them; ``update_id`` is that of the book they stand for."""

    instrument: str
    update_id: int
    bid: int
    bid_size: int
    ask: int
    ask_size: int
    ts_event: int
    ts_recv: int
    price_scale: int
    size_scale: int
    source: str = ""

    @property
    def nbytes(self) -> int:
        """A bound on what one takes in a queue."""
        return 256


Event: TypeAlias = Instrument | TradeBatch | Health | BookUpdate | Quote
"""What a source yields: an instrument before its first trade, batches, books, changes of health."""

Message: TypeAlias = (
    Instrument | TradeBatch | CandleBatch | Head | Wanted | Gap | Health | BookUpdate | Quote | Watch | Announcement
)
"""What travels on the bus."""


def position(epoch: str, offset: int) -> str:
    """The resume token of every surface: ``epoch:offset``."""
    return f"{epoch}:{offset}"


def partition_of(instrument: str, partitions: int) -> int:
    """Which of ``partitions`` an instrument belongs to: the CRC-32 of its id modulo their number, on every bus."""
    return crc32(instrument.encode()) % partitions


class Lease(NamedTuple):
    """Who holds a name, and for how many seconds more by the store's own clock."""

    holder: str
    left: float


@dataclass(slots=True, kw_only=True)
class TapeState:
    """What a store knows of one tape: everything an engine needs to go on after a restart.

    ``ranges``: coverage, shape (n, 4) int64: from_id, to_id, from_ts, to_ts, ascending.
    ``rows``: candles that can still change without a new trade. ``newest``: shape (18,)
    int64, the newest stored open time per timeframe index, ``NO_TIME`` where none.
    """

    instrument: Instrument
    number: int
    epoch: str
    owner: int
    seq: int = 0
    pos: int = 0
    watermark: int = NO_TIME
    ranges: I64 = field(default_factory=lambda: np.empty((0, 4), np.int64))
    rows: Candles = field(default_factory=empty_candles)
    newest: I64 = field(default_factory=lambda: np.full(18, NO_TIME, np.int64))
    gaps: tuple[Gap, ...] = ()


@dataclass(slots=True, kw_only=True)
class TapeCommit:
    """One instrument's part of a commit group: written whole or not at all.

    ``trades`` carry ``seq``; ``rows`` replace stored candles of the same key (origin tape);
    ``ranges_put`` (n, 4) replace coverage with the same from_id, ``ranges_gone`` (n,) are
    from_ids that merged into a neighbour. The commit is refused unless the stored head has
    ``owner`` and ``expected_pos``.
    """

    number: int
    instrument: str
    owner: int
    expected_pos: int
    head: Head
    trades: list[TradeBatch]
    rows: Candles
    ranges_put: I64
    ranges_gone: I64
    gaps: tuple[Gap, ...] = ()
    """Gaps that were opened or changed state."""
    names: I64 = field(default_factory=lambda: np.empty((0, 2), np.int64))
    """``TradeBatch.names`` of the trades, where ids are ``unique``: kept for good, so that none is taken twice."""


class Refused(frozenset[str]):
    """Instruments whose part of a commit group was refused: their stored head is not the one that was committed to.

    ``rewound``: those whose tape lost what had been acknowledged of it, or is gone, because the store was restored or
    a standby was promoted. Of the others somebody else is the owner.
    """

    rewound: frozenset[str]

    def __new__(cls, instruments: Iterable[str] = (), rewound: Iterable[str] = ()) -> Self:
        made = super().__new__(cls, instruments)
        made.rewound = frozenset(rewound)
        return made
