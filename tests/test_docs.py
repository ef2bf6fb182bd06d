"""Documentation is tested: reference pages are current, nothing is left out of them, links lead somewhere."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tapewick import metrics
from tapewick.cli import overview
from tapewick.commands import COMMANDS, module_of, parser_of
from tapewick.config import SETTINGS
from tapewick.errors import ConfigError, StoreDamaged
from tests.e2e.browser import part as installed

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
NOT_METRICS = {"tapewick_writer", "tapewick_reader", "tapewick_migrator"}  # roles of a database


def test_reference_pages_are_current() -> None:
    done = subprocess.run([sys.executable, ROOT / "scripts" / "docs.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_setting_and_command_is_in_the_reference() -> None:
    settings = (ROOT / "docs" / "reference" / "settings.md").read_text("utf-8")
    commands = (ROOT / "docs" / "reference" / "cli.md").read_text("utf-8")
    readme = (ROOT / "README.md").read_text("utf-8")
    for setting in SETTINGS:
        assert f"`{setting.key}`" in settings
        assert f"`{setting.env}`" in settings
    for name in COMMANDS:
        assert f"\n## {name}\n" in commands
        assert re.search(rf"`tapewick {name}\b", readme), name


def test_every_metric_is_in_the_reference_and_nothing_else() -> None:
    page = (ROOT / "docs" / "reference" / "metrics.md").read_text("utf-8")
    printed = re.findall(r"^# TYPE (\S+) (?:counter|gauge|histogram)$", metrics.render().decode(), re.MULTILINE)
    names = {name for name in printed if not name.endswith("_created")}
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == names
    told = "\n".join(path.read_text("utf-8") for path in PAGES if path.name not in ("metrics.md", "CHANGELOG.md"))
    series = {f"{name}{end}" for name in names for end in ("", "_bucket", "_sum", "_count")}
    assert set(re.findall(r"`(tapewick_\w+)", told)) - series <= NOT_METRICS


def _examples() -> Iterator[str]:
    """What pages and help tell the reader to type, a line each."""
    for name in COMMANDS:
        yield from module_of(name).EXAMPLES
    yield from re.findall(r"^  (tapewick .*)$", overview().partition("examples:")[2], re.MULTILINE)
    for page in PAGES:
        for block in re.findall(r"^ *```(?!ini)\w*\n(.*?)^ *```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE):
            yield from re.findall(r"^ *((?:\w+=\S+ )*(?:\S*/bin/)?tapewick (?!\d).*)$", block, re.MULTILINE)


@pytest.mark.parametrize("line", sorted(set(_examples())))
def test_what_is_told_to_be_typed_is_understood(line: str) -> None:
    """By a shell, which ends the line at ``#``, and by the command itself."""
    assert not re.search(r"\S {2,}[^# ]", line), "what a column apart tells is a comment: put # before it"
    words = shlex.shlex(line.replace("/etc/tapewick/tapewick.env", os.devnull), posix=True, punctuation_chars=True)
    words.whitespace_split = True
    typed = itertools.takewhile(lambda word: word not in (">", "|", "&&", ")"), words)
    rest = list(itertools.dropwhile(lambda word: not word.endswith("tapewick"), typed))
    if rest:  # else it is within an eval
        parser_of(rest[1]).parse_args(rest[2:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    for target, place in _links(page):
        assert target.exists(), target
        if place:
            heads = re.findall(r"^#+ (.*)$", target.read_text("utf-8"), re.MULTILINE)
            assert place in {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}, place


def _links(page: Path) -> list[tuple[Path, str]]:
    """The files that a page's relative links name, and the heading within each, if any."""
    found = re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", page.read_text("utf-8"))
    return [((page.parent / file).resolve() if file else page, place) for file, place in found if "://" not in file]


def test_every_page_is_found_from_the_readme() -> None:
    """In a few steps; a decision by its folder."""
    found, new = set[Path](), {ROOT / "README.md"}
    while new:
        found |= new
        new = {file for page in new for file, _ in _links(page) if file.suffix == ".md"} - found
    own = {page for page in PAGES if page.parent != ROOT and "decisions" not in page.parts}
    assert own <= found, own - found
    assert (ROOT / "docs" / "tutorial.md", "") in _links(ROOT / "README.md")


def test_decision_notes_are_numbered_short_and_complete() -> None:
    notes = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert [int(note.name[:4]) for note in notes] == list(range(1, len(notes) + 1))
    for note in notes:
        text = note.read_text("utf-8")
        assert len(text.splitlines()) <= 45, note.name
        for part in ("**Context.**", "**Choice.**", "**Measured", "**What would change our mind.**"):
            assert part in text, (note.name, part)


def test_exit_codes_are_documented() -> None:
    table = (ROOT / "docs" / "how-to" / "operate.md").read_text("utf-8")
    for code in (0, 1, 2, 3, 4, 130, 143):
        assert f"| {code} |" in table


@pytest.mark.parametrize("role", ["collect", "engine", "gateway", "scan"])
def test_the_units_for_systemd_are_sound(role: str, tmp_path: Path) -> None:
    """As systemd sees them; and what must not be tried again is what the errors say, by their exit codes."""
    text = (ROOT / "docs" / "how-to" / "systemd.md").read_text("utf-8")
    [unit] = re.findall(r"^```ini\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert f"RestartPreventExitStatus={ConfigError.exit_code} {StoreDamaged.exit_code}\n" in unit
    program = installed("systemd-analyze", shutil.which("systemd-analyze"), "apt-get install systemd")
    file = tmp_path / f"tapewick-{role}@.service"
    file.write_text(unit.replace("/opt/tapewick/bin/tapewick", sys.executable), "utf-8")
    done = subprocess.run([program, "verify", "--man=no", str(file)], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr


@pytest.mark.parametrize("process", ["collect-1", "engine-1", "gateway-2", "scan-1"])
def test_the_environment_for_systemd_suits_each_role(process: str, tmp_path: Path) -> None:
    """Each process is given what all share and what is its own: nothing of it may be another role's. Store and bus
    are away, so the role gets as far as asking for them."""
    text = (ROOT / "docs" / "how-to" / "systemd.md").read_text("utf-8")
    [block] = re.findall(r"^```sh\n(# tapewick.env\n.*?)^```", text, re.DOTALL | re.MULTILINE)
    files = dict(re.findall(r"^# (\S+)\.env\n(.*?)(?=^#|\Z)", block, re.DOTALL | re.MULTILINE))
    (tmp_path / "given.env").write_text(files["tapewick"] + files[process], "utf-8")
    env = {name: value for name, value in os.environ.items() if not name.startswith("TAPEWICK_")}
    start = partial(subprocess.run, capture_output=True, text=True, cwd=tmp_path)
    tapewick = (sys.executable, "-m", "tapewick")
    done = start([*tapewick, "config", "check", "--no-config", "--env-file", "given.env"], env=env)
    assert done.returncode == 0, done.stderr
    away = re.sub(r"postgresql://\S+", "postgresql://tapewick@127.0.0.1:1/tapewick", files["tapewick"] + files[process])
    away = re.sub(r"rediss://\S+", "redis://127.0.0.1:1/0", away)
    env |= dict(line.split("=", 1) for line in away.splitlines()) | {"TAPEWICK_DATA__DIR": str(tmp_path)}
    done = start([*tapewick, "run", process.partition("-")[0], "--no-config"], env=env)
    assert done.returncode == 1 and "127.0.0.1:1" in done.stderr, done.stderr


def test_attribution_travels() -> None:
    notice = (ROOT / "NOTICE").read_text("utf-8")
    assert "TradingView Lightweight Charts™" in notice
    assert "Copyright (с) 2025 TradingView, Inc. https://www.tradingview.com/" in notice
    assert "Apache License" in (ROOT / "LICENSE").read_text("utf-8")
