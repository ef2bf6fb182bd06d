"""``repair``: fetch from the venue what tapes lack, until nothing is missing or no attempt is left."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from tapewick.commands.options import Parser, flag, moment, option, server, setting, settings_of
from tapewick.commands.output import Progress, configure_logs, note, plural, write
from tapewick.config import closest
from tapewick.errors import ConfigError, NotFound, SourceError, StoreError
from tapewick.settings import Settings

if TYPE_CHECKING:
    from tapewick.commands.mending import Mender
    from tapewick.model import Instrument
    from tapewick.protocols import Store

__all__ = ["EXAMPLES", "options", "run"]

EXAMPLES = (
    "tapewick repair --data ./d                                      # all tapes of a folder no server owns",
    "tapewick repair --url http://127.0.0.1:8080 --token KEY         # by the running server; scope admin",
    "tapewick repair binance:BTCUSDT --from 2026-01-01 --to 2026-01-02 --force   # also what was lost unseen",
)
LAST = 2**62  # no trade id is higher
LEFT = 4  # exit code: the tape is known to lack trades


def options(parser: Parser) -> None:
    """Add the command's arguments to ``parser``."""
    parser.add_argument("instruments", nargs="*", metavar="ID", help="instruments to repair; none: all")
    option(parser, "--from", "with --force: from here, ms since 1970 or ISO 8601", type=moment, metavar="TIME")
    option(parser, "--to", "with --force: up to here, exclusive", type=moment, metavar="TIME")
    flag(parser, "--force", "compare the stored trades of --from to --to with the venue's, and put back lost ones")
    asking(parser)


def asking(parser: Parser) -> None:
    """Add what every command takes that has trades fetched."""
    setting(parser, "data.dir", "--data")
    server(parser, "have this running server do it instead")
    flag(parser, "--json", "print the outcome as JSON Lines, one object per instrument")
    flag(parser, "--no-progress", "no progress on stderr")
    setting(parser, "log.level", "--log-level")


def run(args: argparse.Namespace) -> int:
    """Repair; 4 if a gap could not be closed. Raises ``NotFound``, ``StoreBusy`` or ``SourceError``."""
    from tapewick.commands.mending import mender
    from tapewick.commands.running import run as run_until_signal

    settings = settings_of(args)
    configure_logs(settings.log)
    start, end = getattr(args, "from"), args.to
    if args.force or start is not None or end is not None:
        _require_range(args, settings.data.dir, start, end)
        return run_until_signal(_forced(settings, args, start, end))

    async def work() -> int:
        code = 0
        async with mender(settings, args) as tape:
            for instrument in args.instruments or await tape.instruments():
                outcome = await _repaired(tape, instrument, shown=not args.no_progress)
                code = LEFT if outcome["gaps"] else code
                _print(outcome, args.json)
        return code

    return run_until_signal(work())


def _require_range(args: argparse.Namespace, folder: str, start: int | None, end: int | None) -> None:
    from pathlib import Path

    if not args.force:
        raise ConfigError("--from and --to are for --force: without it all that is known to be missing is repaired")
    if start is None or end is None or not args.instruments:
        raise ConfigError("--force needs instruments, --from and --to: what is to be fetched again")
    if end <= start:
        raise ConfigError("--to must be after --from")
    if args.url:
        raise ConfigError("--force works on a folder: stop the server and name its folder with --data")
    if not Path(folder).is_dir():
        raise StoreError(f"there is no data folder {folder}: name it with --data")


async def _forced(settings: Settings, args: argparse.Namespace, start: int, end: int) -> int:
    from tapewick import registry

    code = 0
    async with registry.store(settings) as store:
        known = {instrument.id: instrument for instrument in await store.instruments()}
        for id in args.instruments:
            if id not in known:
                raise NotFound(f"no tape of {id!r} in this folder{closest(id, known)}")
            outcome = await _refetched(settings, store, known[id], start, end, shown=not args.no_progress)
            code = LEFT if outcome["differing"] or outcome["refused"] else code
            if args.json:
                write(json.dumps(outcome).encode() + b"\n")
            else:
                note(
                    f"{id}: {plural(outcome['compared'], 'trade')} compared, {outcome['restored']} put back, "
                    f"{outcome['differing']} differ from the venue's, {outcome['refused']} fit no candle"
                )
    return code


async def _refetched(
    settings: Settings, store: Store, instrument: Instrument, start: int, end: int, *, shown: bool
) -> dict[str, Any]:
    from tapewick import venue_edge
    from tapewick.refetch import Outcome, refetch

    repairer = venue_edge.repairer(settings, instrument.venue, granularity=instrument.granularity)
    if repairer is None or instrument.id_kind != "contiguous":
        raise ConfigError(f"{instrument.id} cannot be asked for by id: --force works for binance venues")
    bar = Progress("trade", shown=shown)

    def show(outcome: Outcome) -> None:
        bar.update(outcome.compared, 0.0)

    async with repairer:
        low, after = await repairer.first_id_at(instrument.id, start), await repairer.first_id_at(instrument.id, end)
        if low is None:
            raise SourceError(f"the venue has no trades of {instrument.id} from then on; choose an earlier --from")
        ids = low, LAST if after is None else after - 1
        try:
            lateness = settings.engine.lateness_ms * 1_000_000
            outcome = await refetch(store, repairer, instrument.id, ids, lateness=lateness, show=show)
        finally:
            bar.close()
    head = await store.head(instrument.id)
    return {
        "instrument": instrument.id,
        "compared": outcome.compared,
        "restored": outcome.restored,
        "differing": outcome.differing,
        "refused": outcome.refused,
        "position": f"{head.epoch}:{head.seq}",
    }


async def _repaired(tape: Mender, instrument: str, *, shown: bool) -> dict[str, Any]:
    from tapewick.commands.mending import reopened, until

    before = await tape.coverage(instrument)
    left = lost = _missing(before)
    if before["gaps"]:
        bar = Progress("id", shown=shown)

        def show(ledger: dict[str, Any]) -> None:
            bar.update(max(0, lost - _missing(ledger)), 1 - _missing(ledger) / max(lost, 1))

        await tape.ask(instrument)
        try:
            await reopened(tape, instrument, lambda ledger: not _given_up(ledger))
            after = await until(tape, instrument, _settled, show)
        finally:
            bar.close()
        left = _missing(after)
        before = after
    return {
        "instrument": instrument,
        "ids": lost - left,
        "missing": left,
        "gaps": before["gaps"],
        "position": before["position"],
    }


def _missing(ledger: dict[str, Any]) -> int:
    """Ids the ledger knows to be missing."""
    from tapewick.commands.mending import missing

    if not ledger["ranges"]:
        return 0
    return sum(b - a + 1 for a, b in missing(ledger, ledger["ranges"][0][0], ledger["ranges"][-1][1]))


def _given_up(ledger: dict[str, Any]) -> bool:
    """Whether gaps are still shown as given up that have just been asked for again."""
    return bool(ledger["gaps"]) and all(gap["state"] == "unrepairable" for gap in ledger["gaps"])


def _settled(ledger: dict[str, Any]) -> bool:
    return all(gap["state"] == "unrepairable" for gap in ledger["gaps"])


def _print(outcome: dict[str, Any], as_json: bool) -> None:
    if as_json:
        write(json.dumps(outcome).encode() + b"\n")
        return
    rest = f", {plural(outcome['missing'], 'id')} still missing: the venue has no answer" if outcome["gaps"] else ""
    note(f"{outcome['instrument']}: {plural(outcome['ids'], 'id')} repaired{rest}")
