"""Every error tapewick raises, as one tree.

    TapewickError
    ├── ConfigError            a setting is unknown, malformed or contradictory    exit 2
    │   └── MissingExtra       an optional driver is not installed                 exit 2
    ├── ModelError             a value cannot be a trade, candle or instrument     exit 2
    │   ├── UnknownTimeframe   not one of the 18 timeframes or their aliases       exit 2
    │   ├── BadDecimal         text that is no exact decimal, or does not fit      exit 2
    │   └── WireError          bytes that are no tapewick message                  exit 1
    ├── SourceError            a venue, file or chain cannot be read               exit 3
    │   ├── Disconnected       the connection ended; the reader reconnects
    │   ├── BadPayload         a frame or file that cannot be decoded
    │   ├── VenueRefused       the venue answered with an error (429, 451, …)
    │   └── NodeRefused        a chain's node answered with an error
    │       └── TooWide        it asks for a smaller range of blocks
    ├── ChainError             a chain contradicts what was stored of it            exit 4
    │   ├── ReorgTooDeep       it replaced blocks that were final
    │   └── CursorAhead        it ends below what was scanned: another node or chain
    ├── BusError               a message bus failed                                exit 1
    │   └── BusRefused         the server turned it down; trying again is no use   exit 1
    ├── StoreError             a store failed                                      exit 1
    │   ├── StoreBusy          another process owns the data folder                exit 1
    │   ├── StoreDamaged       the database file cannot be read                    exit 4
    │   ├── SchemaOlder        the schema lacks what newer versions added          exit 1
    │   ├── Fenced             another engine took the partition over
    │   ├── Rewound            the store was restored under an engine with a fixed part
    │   └── LeaseLost          a lease ran out while it was in use
    └── ApiError               a request that cannot be served; carries a status
        ├── BadRequest         400, names the field and the remedy
        ├── Unauthorized       401, tells how to show a token
        ├── Forbidden          403, names the scope that is lacking
        ├── NotFound           404, names what is missing
        ├── Conflict           409, the same request is under way; tells when to try again
        ├── TooLarge           413, names the limit
        ├── Unprocessable      422, contradicts an earlier request
        ├── TooManyRequests    429, tells when to try again
        └── Unavailable        503, tells when to try again

Each message says what happened and what to do next. The command line prints it on one
line and exits with ``exit_code``; HTTP gateways turn ``ApiError`` and ``ModelError``
into problem bodies.
"""

from __future__ import annotations

__all__ = [
    "ApiError",
    "BadDecimal",
    "BadPayload",
    "BadRequest",
    "BusError",
    "BusRefused",
    "ChainError",
    "ConfigError",
    "Conflict",
    "CursorAhead",
    "Disconnected",
    "Fenced",
    "Forbidden",
    "LeaseLost",
    "MissingExtra",
    "ModelError",
    "NodeRefused",
    "NotFound",
    "ReorgTooDeep",
    "Rewound",
    "SchemaOlder",
    "SourceError",
    "StoreBusy",
    "StoreDamaged",
    "StoreError",
    "TapewickError",
    "TooLarge",
    "TooManyRequests",
    "TooWide",
    "Unauthorized",
    "Unavailable",
    "UnknownTimeframe",
    "Unprocessable",
    "VenueRefused",
    "WireError",
]


class TapewickError(Exception):
    """Base of all errors raised by tapewick."""

    exit_code = 1


class ConfigError(TapewickError):
    """A setting is unknown, malformed or contradictory."""

    exit_code = 2


class MissingExtra(ConfigError):
    """An optional driver is not installed; the message holds the install command.

    ``library``: the package to install where that alone is enough.
    """

    def __init__(self, feature: str, extra: str, library: str | None = None) -> None:
        whole = f"pip install 'tapewick[{extra}]'"
        if library is None:
            super().__init__(f"{feature} needs an extra: {whole}")
        else:
            super().__init__(f"{feature} needs {library}: pip install {library}, or together with tapewick {whole}")
        self.extra = extra


class ModelError(TapewickError):
    """A value cannot be a trade, candle or instrument."""

    exit_code = 2


class UnknownTimeframe(ModelError):
    """Not one of the 18 timeframes or their aliases."""


class BadDecimal(ModelError):
    """Text that is no exact decimal number, or one that does not fit its scale."""


class WireError(ModelError):
    """Bytes that are no tapewick message."""

    exit_code = 1


class SourceError(TapewickError):
    """A venue, file or chain cannot be read."""

    exit_code = 3


class Disconnected(SourceError):
    """The connection ended; readers reconnect with jittered back-off."""


class BadPayload(SourceError):
    """A frame or file that cannot be decoded."""

    exit_code = 2


class VenueRefused(SourceError):
    """The venue answered with an error status.

    ``retry_after`` is seconds to wait before asking again, where the venue said so.
    """

    def __init__(self, message: str, *, status: int, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class NodeRefused(SourceError):
    """A chain's node answered with an error; ``code`` is that of JSON-RPC, ``final``: asking again is no use,
    ``halted``: it is the contract asked of that failed, on every node alike. ``rate``: too much was asked in too
    short a time."""

    def __init__(self, message: str, *, code: int, final: bool, halted: bool = False, rate: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.final = final
        self.halted = halted
        self.rate = rate


class TooWide(NodeRefused):
    """The node wants a smaller range; ``span`` is how many blocks it takes, None where it did not say."""

    def __init__(self, message: str, *, code: int, span: int | None) -> None:
        super().__init__(message, code=code, final=True)
        self.span = span


class ChainError(TapewickError):
    """A chain contradicts what was stored of it, and only the operator can say which one holds."""

    exit_code = 4


class ReorgTooDeep(ChainError):
    """The chain replaced blocks that were final when they were scanned."""


class CursorAhead(ChainError):
    """The chain ends below what was scanned: the node was switched, or the chain reset."""


class BusError(TapewickError):
    """A message bus failed."""


class BusRefused(BusError):
    """The message server turned something down, and would again: credentials, rights, a message too large."""


class StoreError(TapewickError):
    """A store failed."""


class StoreBusy(StoreError):
    """Another process owns the data folder, or the tapes of the store."""


class StoreDamaged(StoreError):
    """The database file cannot be read; ``tapewick doctor`` is the way on."""

    exit_code = 4


class SchemaOlder(StoreError):
    """The schema is older than this tapewick, and the store was not to be changed; ``version`` is the one it has."""

    def __init__(self, where: str, version: int, newest: int, remedy: str) -> None:
        told = f"version {version}, the newest is {newest}"
        super().__init__(f"the schema {where} is older than this tapewick ({told}): run `{remedy}`")
        self.version = version


class Fenced(StoreError):
    """Another process took these instruments, or this contract, over; nothing was written for them.

    ``instruments`` names them.
    """

    def __init__(self, instruments: frozenset[str]) -> None:
        names = ", ".join(sorted(instruments))
        super().__init__(f"another process owns {names}: stop one of the two, or have both share by leases")
        self.instruments = instruments


class Rewound(StoreError):
    """The store does not hold any more what it had acknowledged of these ``instruments``: it was restored, or a standby
    without the last commits was promoted. Who starts again goes on from what there is."""

    def __init__(self, instruments: frozenset[str]) -> None:
        names = ", ".join(sorted(instruments))
        super().__init__(
            f"the store lost what it had acknowledged of {names}: start this process again, what is missing is fetched"
        )
        self.instruments = instruments


class LeaseLost(StoreError):
    """A lease ran out while what it was for was going on; another process may do it now."""


class ApiError(TapewickError):
    """A request that cannot be served; ``status`` is the HTTP status it becomes."""

    status = 500

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class BadRequest(ApiError):
    """400: names the field and the remedy."""

    status = 400
    exit_code = 2


class Unauthorized(ApiError):
    """401: the client showed no token, or one that is not known."""

    status = 401


class Forbidden(ApiError):
    """403: the client is known, but may not do this."""

    status = 403


class NotFound(ApiError):
    """404: names what is missing."""

    status = 404
    exit_code = 2


class Conflict(ApiError):
    """409: ``retry_after`` is seconds after which the request that is under way has ended."""

    status = 409

    def __init__(self, message: str, *, retry_after: int, field: str | None = None) -> None:
        super().__init__(message, field=field)
        self.retry_after = retry_after


class TooManyRequests(ApiError):
    """429: ``retry_after`` is seconds to wait before asking again."""

    status = 429

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TooLarge(ApiError):
    """413: the request is larger than is taken at once."""

    status = 413


class Unprocessable(ApiError):
    """422: the request contradicts an earlier one."""

    status = 422


class Unavailable(ApiError):
    """503: the server cannot do this now; ``retry_after`` is seconds to wait before asking again."""

    status = 503

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after
