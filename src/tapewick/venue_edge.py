"""What talks to venues, made as the settings say: live and simulated sources, repair, recording, verification."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tapewick import registry
from tapewick.errors import ConfigError
from tapewick.settings import Settings

if TYPE_CHECKING:
    from tapewick.clock import Clock
    from tapewick.market import Market
    from tapewick.model import Wanted
    from tapewick.protocols import Source, Store
    from tapewick.record import Recorder
    from tapewick.sim.venue import SimVenue
    from tapewick.sources._binance_repair import BinanceRepairer
    from tapewick.sources.venue_klines import VenueKlines
    from tapewick.verify import Verifier

__all__ = [
    "continue_market",
    "klines",
    "recorder",
    "repairer",
    "simulated_source",
    "source",
    "venue",
    "verifier",
]

SIM_ORIGIN = 1_767_225_600_000  # 2026-01-01: fixed, so that a restarted demo continues its tape
UNLIMITED = 10**9  # request weight per minute of a venue that sets no limit
SIM_HISTORY_MS = 6 * 3_600_000  # what a new demo folder starts with


def venue(settings: Settings) -> SimVenue:
    """The simulated venue, not yet listening."""
    from tapewick.sim.venue import SimVenue

    own = settings.sim
    return SimVenue(own.symbols, seed=own.seed, rate=own.rate, origin=SIM_ORIGIN)


async def continue_market(settings: Settings, store: Store, venue: SimVenue) -> None:
    """Note with what the simulated market of the data folder is made.

    Raises ``ConfigError`` where ``store`` holds trades of another one: they would be mixed.
    """
    from tapewick.sim.continuity import Made, contradicted

    own = Made(settings.sim.seed, settings.sim.rate)
    folder = Path(settings.data.dir) if settings.store.kind == "duckdb" else None
    if (id := await contradicted(store, venue.markets())) is not None:
        before = Made.read(folder) if folder is not None else None
        known = before is not None and before != own
        made = f"--seed {before.seed} --rate {before.rate:g}" if known and before else "other --seed or --rate"
        place = f" in {folder}" if folder is not None else ""
        raise ConfigError(
            f"{id}{place} holds another simulated market, made with {made}, than --seed {own.seed} --rate "
            f"{own.rate:g}: start with the former, or name another folder with --data"
        )
    if folder is not None:
        own.note(folder)


def simulated_source(settings: Settings, venue: SimVenue, *, history: bool, recorder: Recorder | None = None) -> Source:
    """The live source pointed at the simulated venue; its instruments are ``sim:…``.

    ``history``: begin with the venue's last hours, for a data folder that has none.
    """
    live: Source = registry.find("sources", "binance")(
        settings.sim.symbols,
        venue="sim",
        rest_url=venue.rest_url,
        ws_url=venue.ws_url,
        books=settings.binance.books,
        limit=UNLIMITED,
        retry_cap=1.0,
        **_taps(recorder, "sim"),
    )
    if not history:
        return live
    from tapewick.sim.history import WithHistory

    return WithHistory(live, venue.markets(), now=venue.now(), start=venue.now() - SIM_HISTORY_MS)


def _taps(recorder: Recorder | None, venue: str) -> dict[str, Any]:
    """What a source hangs on its connections so that ``recorder`` gets every raw frame."""
    if recorder is None:
        return {}

    def snapshot(symbol: str, body: bytes, recv: int) -> None:
        recorder.snapshot(venue, symbol, body, recv)

    return {"tap": recorder.tap(venue), "snapshot_tap": snapshot}


def repairer(
    settings: Settings, venue: str, *, rest_url: str = "", granularity: Literal["raw", "agg"] | None = None
) -> BinanceRepairer | None:
    """What fetches by id the trades that ``venue`` has and a tape lacks, not yet open; None for a venue that cannot.

    ``rest_url``: the simulated venue's own address, which sets no limit on requests. ``granularity``: of the
    tapes to repair, where it is known; else what the stream setting makes of new ones.
    """
    if not (rest_url or _speaks_binance(settings, venue)):
        return None
    from tapewick.sources._binance_repair import BinanceRepairer

    own = settings.repair
    return BinanceRepairer(
        venue=venue,
        rest_url=rest_url or settings.binance.rest_url or None,
        granularity=granularity or ("agg" if settings.binance.stream == "aggTrade" and not rest_url else "raw"),
        share=own.weight_share,
        limit=UNLIMITED if rest_url else own.weight_limit,
        microseconds=settings.binance.microseconds and not rest_url,
    )


def _speaks_binance(settings: Settings, venue: str) -> bool:
    """Binance's markets do, and those of a demo that is relayed: its address stands where Binance's would."""
    return venue.partition("-")[0] == "binance" or (venue == "sim" and bool(settings.binance.rest_url))


def source(
    settings: Settings,
    venue: str,
    symbols: Sequence[str],
    *,
    wished: Sequence[str] = (),
    recorder: Recorder | None = None,
) -> Source:
    """A live source for ``symbols`` of ``venue``, and for those ``wished`` that it lists. Raises ``ConfigError`` for an
    unknown venue or symbol."""
    own = settings.binance
    if venue == "sim" and not (own.rest_url and own.ws_url):
        raise ConfigError(
            "sim:… is what a demo sells: run `tapewick demo`, or give the addresses of a running one to relay it "
            "(settings binance.rest_url = http://HOST:PORT and binance.ws_url = ws://HOST:PORT)"
        )
    if _speaks_binance(settings, venue):
        made: Source = registry.find("sources", "binance")(
            symbols,
            venue=venue,
            wished=wished,
            rest_url=own.rest_url or None,
            ws_url=own.ws_url or None,
            stream=own.stream,
            books=own.books,
            book_levels=own.book_levels,
            redundant=own.redundant,
            microseconds=own.microseconds,
            share=settings.repair.weight_share,
            limit=settings.repair.weight_limit,
            **_taps(recorder, venue),
        )
        return made
    if venue in registry.names("sources") and venue != "ccxt":  # which is no venue, but the way to a hundred
        other: Source = registry.find("sources", venue)([*symbols, *wished])
        return other
    bridged: Source = registry.find("sources", "ccxt")([*symbols, *wished], venue=venue)
    return bridged


def recorder(settings: Settings) -> Recorder | None:
    """What records raw frames, not yet open; None where none shall be."""
    own = settings.record
    if not own.dir:
        return None
    from tapewick.record import Recorder

    return Recorder(own.dir, max_bytes=own.max_bytes, rotate_seconds=own.rotate_s, rotate_bytes=own.rotate_bytes)


def klines(settings: Settings, venues: Sequence[str], *, rest_url: str = "") -> dict[str, VenueKlines]:
    """Whose bars to compare candles with, of those ``venues`` that have any; not yet open.

    ``rest_url``: the simulated venue's own address, which sets no limit on requests.
    """
    from tapewick.verify import klines as klines_of

    own = settings.repair
    known = [venue for venue in venues if rest_url or _speaks_binance(settings, venue)]
    address, limit = rest_url or settings.binance.rest_url, 10**9 if rest_url else own.weight_limit
    return {venue: klines_of(venue, rest_url=address, share=own.weight_share, limit=limit) for venue in known}


def verifier(
    settings: Settings,
    market: Market,
    venues: Mapping[str, VenueKlines],
    clock: Clock,
    *,
    want: Callable[[Wanted], object],
) -> Verifier:
    """What compares closed candles with the bars of ``venues`` while serving."""
    from tapewick.verify import Verifier

    own = settings.verify
    return Verifier(market, venues, clock=clock, interval=own.interval_s, timeframes=own.timeframes, want=want)
