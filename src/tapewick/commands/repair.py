"""``repair``: fetch from the venue what tapes lack, until nothing is missing or no attempt is left."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from tapewick.commands.options import Parser, flag, option, setting, settings_of
from tapewick.commands.output import Progress, configure_logs, note, plural, write

if TYPE_CHECKING:
    from tapewick.commands.mending import Mender

__all__ = ["EXAMPLES", "options", "run"]

EXAMPLES = (
    "tapewick repair --data ./d                                      all tapes of a folder no server owns",
    "tapewick repair binance:BTCUSDT --data ./d --json               one of them, outcome as JSON",
    "tapewick repair --url http://127.0.0.1:8080                     by the running server",
)
LEFT = 4  # exit code: the tape is known to lack trades


def options(parser: Parser) -> None:
    """Add the command's arguments to ``parser``."""
    parser.add_argument("instruments", nargs="*", metavar="ID", help="instruments to repair; none: all")
    asking(parser)


def asking(parser: Parser) -> None:
    """Add what every command takes that has trades fetched."""
    setting(parser, "data.dir", "--data")
    option(parser, "--url", "have this running server do it instead", metavar="URL")
    flag(parser, "--json", "print the outcome as JSON Lines, one object per instrument")
    flag(parser, "--no-progress", "no progress on stderr")
    setting(parser, "log.level", "--log-level")


def run(args: argparse.Namespace) -> int:
    """Repair; 4 if a gap could not be closed. Raises ``NotFound``, ``StoreBusy`` or ``SourceError``."""
    from tapewick.commands.mending import mender
    from tapewick.commands.running import run as run_until_signal

    settings = settings_of(args)
    configure_logs(settings.log)

    async def work() -> int:
        code = 0
        async with mender(settings, args.url) as tape:
            for instrument in args.instruments or await tape.instruments():
                outcome = await _repaired(tape, instrument, shown=not args.no_progress)
                code = LEFT if outcome["gaps"] else code
                _print(outcome, args.json)
        return code

    return run_until_signal(work())


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
