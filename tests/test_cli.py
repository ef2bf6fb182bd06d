"""The command line: help, exit codes, output, suggestions, completion; C1 to C10 of the acceptance rows."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tapewick import __version__
from tapewick.commands import COMMANDS
from tapewick.commands.options import moment
from tapewick.commands.output import Progress, table
from tapewick.stores._duckdb_log import entries
from tests.fault.recording import write_recording

FRAME = (
    '{received} {{"stream":"btcusdt@trade","data":{{"e":"trade","E":{ms},"s":"BTCUSDT","t":{id},"p":"{price}",'
    '"q":"0.50000000","T":{ms},"m":{maker},"M":true}}}}\n'
)
SOURCES = Path(__file__).parent.parent / "src"
START = 1_700_000_000_000
PRICES = ("100.10", "100.30", "99.90", "100.00")
HEAVY = "asyncio litestar uvicorn duckdb textual grpc pyarrow numpy msgspec httpx2 picows uvloop structlog".split()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Run the command line in an empty folder with an empty environment."""
    yield Run(tmp_path)


class Run:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("TAPEWICK_")}
        self.env |= {"HOME": str(folder), "XDG_CONFIG_HOME": str(folder / "config"), "PYTHONPATH": str(SOURCES)}

    def __call__(self, *args: str, code: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "tapewick", *args],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=self.env | env,
            timeout=120,
        )
        assert done.returncode == code, (args, done.stdout, done.stderr)
        return done

    def start(self, *args: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "tapewick", *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env=self.env,
        )


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """Four invented trades, 30 s apart."""
    path = tmp_path / "capture.log"
    lines = (
        FRAME.format(
            received=(START + i * 30_000 + 5) * 1_000_000,
            ms=START + i * 30_000,
            id=i + 1,
            price=price,
            maker=str(i % 2 == 0).lower(),
        )
        for i, price in enumerate(PRICES)
    )
    path.write_text("".join(lines))
    return path


@pytest.fixture
def filled(run: Run, capture: Path) -> str:
    """A data folder that holds the capture."""
    run("replay", str(capture), "--venue", "binance", "--speed", "max", "--data", "d")
    return "d"


# C2 help, C8 start-up


def test_C8_version_and_help_import_nothing_heavy(run: Run) -> None:
    for args in (("--version",), ("-h",), *((name, "-h") for name in COMMANDS)):
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "tapewick", *args],
            capture_output=True,
            text=True,
            env=run.env,
            cwd=run.folder,
        )
        imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
        assert done.returncode == 0
        assert "tapewick.cli" in imported
        assert not imported & set(HEAVY), args


def test_version(run: Run) -> None:
    assert run("--version").stdout == f"tapewick {__version__}\n"


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_C2_help_fits_and_shows_examples(run: Run, name: str) -> None:
    text = run(*name.split(), "-h").stdout
    lines = text.splitlines()
    assert len(lines) <= 50
    examples = lines[lines.index("examples:") + 1 :]
    assert len([line for line in examples if line.strip()]) == 3


@pytest.mark.parametrize("name", COMMANDS)
def test_C2_every_flag_shows_its_variable_and_default(name: str) -> None:
    from tapewick.commands import parser_of

    for action in parser_of(name)._actions:
        if action.option_strings and action.option_strings[0] != "-h":
            assert re.search(r"\[env: TAPEWICK_[A-Z_]+\] \[default: [^\]]+\]$", str(action.help)), action.option_strings


@pytest.mark.parametrize(
    ("args", "meant"),
    [
        (("sevre",), "did you mean serve?"),
        (("serve", "--prot", "1"), "did you mean --port?"),
        (("import", "--format", "kraken-trade", "f"), "did you mean kraken-trades?"),
        (("candles", "binance:BTCUSDT", "1hr"), "did you mean 1h?"),
        (("--prot", "1"), "did you mean --port?"),
    ],
)
def test_C2_C3_usage_errors_are_one_line_on_stderr_with_a_suggestion(
    run: Run, args: tuple[str, ...], meant: str
) -> None:
    done = run(*args, code=2)
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("tapewick: ")
    assert meant in done.stderr


def test_a_flag_may_be_set_by_its_variable(run: Run, filled: str) -> None:
    assert len(run("trades", "binance:BTCUSDT", "--data", filled, TAPEWICK_LIMIT="2").stdout.splitlines()) == 2
    assert len(run("trades", "binance:BTCUSDT", TAPEWICK_DATA__DIR=filled).stdout.splitlines()) == 4


# C3 exit codes


def test_C3_errors_are_one_line_and_debug_shows_the_trace(run: Run) -> None:
    plain = run("candles", "binance:BTCUSDT", "1m", "--data", "nowhere", code=2)
    assert plain.stderr.count("\n") == 1
    assert "nowhere" in plain.stderr
    traced = run("candles", "binance:BTCUSDT", "1m", "--data", "nowhere", code=2, TAPEWICK_DEBUG="1")
    assert "Traceback" in traced.stderr


def test_C3_no_server_is_3(run: Run) -> None:
    assert "cannot be reached" in run("candles", "a:B", "1m", "--url", "http://127.0.0.1:9", code=3).stderr
    assert "is a server running there?" in run("tail", "a:B", "--url", "http://127.0.0.1:9", code=3).stderr


def test_C3_a_damaged_store_is_4_and_names_the_doctor(run: Run, filled: str) -> None:
    path = run.folder / filled / "tape.duckdb"
    whole = path.read_bytes()
    path.write_bytes(b"\0" * 4096 + whole[4096:])
    done = run("candles", "binance:BTCUSDT", "1m", "--data", filled, code=4)
    assert "tapewick doctor" in done.stderr
    assert "Traceback" not in done.stderr
    assert "fail" in run("doctor", "--data", filled, code=4).stdout


def test_C3_closed_standard_streams_do_no_harm(run: Run, filled: str) -> None:
    before = (run.folder / filled / "tape.duckdb").read_bytes()
    for command in ("candles binance:BTCUSDT 1m --json", "coverage binance:NOPE"):
        line = f"{sys.executable} -m tapewick {command} --data {filled} <&- >&- 2>&-"
        done = subprocess.run(["sh", "-c", line], cwd=run.folder, env=run.env, timeout=120)
        assert done.returncode == (2 if "NOPE" in command else 0)
    assert (run.folder / filled / "tape.duckdb").read_bytes() == before


# C4 machine output


def test_C4_a_pipe_gets_json_lines(run: Run, filled: str) -> None:
    rows = [json.loads(line) for line in run("trades", "binance:BTCUSDT", "--data", filled).stdout.splitlines()]
    assert [row["seq"] for row in rows] == [1, 2, 3, 4]
    assert [row["price"] for row in rows] == ["100.1", "100.3", "99.9", "100"]
    assert rows[0]["ts_event"] == START
    assert [row["side"] for row in rows] == ["sell", "buy", "sell", "buy"]
    newest = run("trades", "binance:BTCUSDT", "--data", filled, "--limit", "1", "--json").stdout
    assert json.loads(newest)["seq"] == 4
    after = run("trades", "binance:BTCUSDT", "--data", filled, "--since", "1", "--limit", "2").stdout.splitlines()
    assert [json.loads(line)["seq"] for line in after] == [2, 3]


def test_candles_by_range_and_limit(run: Run, filled: str) -> None:
    def opens(*args: str) -> list[int]:
        out = run("candles", "binance:BTCUSDT", *args, "--data", filled, "--json").stdout
        return [json.loads(line)["open_time"] for line in out.splitlines()]

    minute = START - START % 60_000
    assert opens("1m") == [minute, minute + 60_000]
    assert opens("1m", "--limit", "1") == [minute + 60_000]
    assert opens("1m", "--start", str(minute), "--limit", "1") == [minute]
    assert opens("1m", "--end", str(minute + 60_000)) == [minute]
    assert opens("1m", "--start", "2023-11-14T22:14:00Z", "--limit", "0") == [minute + 60_000]
    assert opens("1s", "--limit", "0") == [START + i * 30_000 for i in range(4)]
    assert opens("1s", "--limit", "2") == [START + i * 30_000 for i in (2, 3)]


def test_coverage_is_one_object(run: Run, filled: str) -> None:
    ledger = json.loads(run("coverage", "binance:BTCUSDT", "--data", filled, "--json").stdout)
    assert {name: ledger[name] for name in ("instrument", "trades", "ranges", "gaps")} == {
        "instrument": "binance:BTCUSDT",
        "trades": 4,
        "ranges": [[1, 4]],
        "gaps": [],
    }


def test_an_unknown_instrument_gets_a_suggestion(run: Run, filled: str) -> None:
    assert "did you mean binance:BTCUSDT?" in run("trades", "BTCUSDT", "--data", filled, code=2).stderr
    assert "did you mean binance:BTCUSDT?" in run("trades", "binance:BTCUSD", "--data", filled, code=2).stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("candles", "a:B", "1m", "--data", "nowhere"), ("nowhere", "--url", "demo")),
        (("export", "a:B", "--data", "nowhere"), ("nowhere", "--url", "demo")),
        (("export", "binance:BTCUSDT", "--data", "d", "--out", "no/such/x.csv"), ("folder no/such",)),
        (("backfill", "sim:BTCUSDT", "--from", "2026-01-01", "--data", "d"), ("tapewick repair sim:BTCUSDT --url",)),
        (("backfill", "other:BTCUSDT", "--from", "2026-01-01", "--data", "d"), ("TAPEWICK_BINANCE__REST_URL",)),
        (
            ("import", "--archive", "sim:BTCUSDT", "--from", "2026-01-01", "--data", "d"),
            ("'sim' publishes no archives",),
        ),
    ],
)
def test_what_cannot_be_done_names_the_remedy(
    run: Run, filled: str, args: tuple[str, ...], said: tuple[str, ...]
) -> None:
    told = run(*args, code=2).stderr
    assert all(part in told for part in said), told


def test_replaying_twice_changes_nothing(run: Run, capture: Path, filled: str) -> None:
    before = run("candles", "binance:BTCUSDT", "1m", "--data", filled).stdout
    again = run("replay", str(capture), "--venue", "binance", "--data", filled, "--json")
    report = json.loads(again.stdout)
    assert (report["trades"], report["duplicates"], report["gaps"]) == (0, 4, 0)
    assert run("candles", "binance:BTCUSDT", "1m", "--data", filled).stdout == before


def test_C5_progress_and_outcome_go_to_stderr(run: Run, capture: Path) -> None:
    done = run("replay", str(capture), "--venue", "binance", "--data", "e")
    assert done.stdout == ""
    assert re.search(r"tapewick: 4 trades in [\d.]+ s \([\d,]+/s\); 0 duplicates, 0 rejected, 0 gaps", done.stderr)


def test_import_of_bars_rolls_up(run: Run) -> None:
    minutes = [1_700_006_400_000 + i * 900_000 for i in range(8)]
    rows = ([t, "10.0", "12.0", "9.0", "11.0", "2.0", t + 899_999, "21.0", 3, "1.0", "10.5", "0"] for t in minutes)
    (run.folder / "bars.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run("import", "--format", "binance-klines", "--tf", "15m", "--instrument", "binance:X", "bars.jsonl", "--data", "k")
    out = run("candles", "binance:X", "1h", "--data", "k", "--json").stdout.splitlines()
    hours = [json.loads(line) for line in out]
    assert [row["open_time"] for row in hours] == [minutes[0], minutes[4]]
    assert {row["origin"] for row in hours} == {"import"}
    assert [(row["open"], row["close"], row["volume"], row["trades"]) for row in hours] == [("10", "11", "8", 12)] * 2


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--instrument", "a:B", "f"), "import needs --format"),
        (("--format", "kraken-trades", "f"), "import needs --instrument"),
        (("--format", "kraken-trades", "--instrument", "B", "f"), "names no venue"),
        (("--format", "binance-klines", "--instrument", "a:B", "f"), "--tf goes with"),
        (("--format", "kraken-trades", "--tf", "1m", "--instrument", "a:B", "f"), "--tf goes with"),
        (("--format", "kraken-trades", "--instrument", "a:B", "f"), "f is no file"),
    ],
)
def test_import_says_what_is_missing(run: Run, args: tuple[str, ...], said: str) -> None:
    assert said in run("import", *args, code=2).stderr


# C5 colour and progress


class Terminal:
    def __init__(self, tty: bool) -> None:
        self.tty, self.text = tty, ""

    def isatty(self) -> bool:
        return self.tty

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None: ...


@pytest.mark.parametrize(
    ("when", "tty", "names", "expected"),
    [
        ("auto", True, {}, True),
        ("auto", False, {}, False),
        ("auto", True, {"NO_COLOR": "1"}, False),
        ("auto", False, {"FORCE_COLOR": "1"}, True),
        ("auto", True, {"TERM": "dumb"}, False),
        ("always", False, {"NO_COLOR": "1"}, True),
        ("never", True, {"FORCE_COLOR": "1"}, False),
    ],
)
def test_C5_colour(
    when: str, tty: bool, names: dict[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tapewick.commands.output import coloured

    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    assert coloured(when, Terminal(tty)) is expected  # type: ignore[arg-type]


def test_C5_progress_is_redrawn_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    terminal, pipe, hidden = Terminal(True), Terminal(False), Terminal(True)
    bars = [
        Progress("trade", shown=shown, stream=stream)  # type: ignore[arg-type]
        for stream, shown in ((terminal, True), (pipe, True), (hidden, False))
    ]
    for step in range(1, 22):
        now = 100.0 + step
        for bar in bars:
            bar.update(step * 1000, step / 21)
    for bar in bars:
        bar.close()
    assert terminal.text.count("\r") == 22
    assert "1,000/s" in terminal.text
    assert len(pipe.text.splitlines()) == 2
    assert "\r" not in pipe.text
    assert hidden.text == ""


def test_tables_align_numbers_right() -> None:
    text = table(("name", "size"), [("a", "1.5"), ("bcd", "100")])
    assert text == "name  size\na      1.5\nbcd    100\n"


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1700000000000", 1_700_000_000_000_000_000),
        ("2023-11-14T22:13:20Z", 1_700_000_000_000_000_000),
        ("2023-11-14 22:13:20.000001", 1_700_000_000_000_001_000),
        ("2023-11-15T00:13:20+02:00", 1_700_000_000_000_000_000),
    ],
)
def test_moments(text: str, ns: int) -> None:
    assert moment(text) == ns


# C6 configuration


def test_C6_config_show_tells_origins_and_hides_secrets(run: Run) -> None:
    (run.folder / "tapewick.toml").write_text("[server]\nport = 1234\n")
    out = run("config", "show", "--origin", "--json", TAPEWICK_BINANCE__REST_URL="https://me:pw@host.test/x").stdout
    rows = {row["key"]: row for row in map(json.loads, out.splitlines())}
    assert rows["server.port"] == {"key": "server.port", "value": 1234, "origin": "tapewick.toml"}
    assert rows["binance.rest_url"]["origin"] == "environment"
    assert "pw" not in out
    assert rows["sim.seed"]["origin"] == "default"


def test_C6_config_check(run: Run) -> None:
    assert "the settings are sound" in run("config", "check").stdout
    assert json.loads(run("config", "check", "--json").stdout) == {"ok": True}
    (run.folder / "tapewick.toml").write_text("[server]\nprot = 1\n")
    assert "did you mean server.port?" in run("config", "check", code=2).stderr
    assert "the settings are sound" in run("config", "check", "--no-config").stdout


# C7 completion


@pytest.fixture
def shell(run: Run, filled: str) -> tuple[Path, dict[str, str]]:
    """The completion script, and the environment of a shell in which tapewick is a command of the filled folder."""
    script = run.folder / "completion.bash"
    script.write_text(run("completion", "bash").stdout)
    (run.folder / "tapewick").write_text(f'#!/bin/sh\nexec {sys.executable} -m tapewick "$@"\n')
    (run.folder / "tapewick").chmod(0o755)
    path = f"{run.folder}:{run.env['PATH']}"
    return script, run.env | {"PATH": path, "TAPEWICK_DATA__DIR": filled, "TAPEWICK_SERVER__PORT": "9"}


def test_C7_bash_completes_commands_flags_timeframes_and_instruments(
    run: Run, shell: tuple[Path, dict[str, str]]
) -> None:
    script, env = shell

    def complete(*words: str) -> set[str]:
        code = f"""
        source {script}
        COMP_WORDS=({" ".join(repr(word) for word in words)}); COMP_CWORD={len(words) - 1}
        _tapewick; printf '%s\\n' "${{COMPREPLY[@]}}"
        """
        done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True, cwd=run.folder, env=env)
        return set(done.stdout.split())

    instrument = ("binance", ":", "BTCUSDT")  # as readline splits it
    assert complete("tapewick", "c") == {"candles", "coverage", "config", "completion"}
    assert complete("tapewick", "serve", "--po") == {"--port"}
    for name in ("candles", "trades", "coverage", "tail", "verify", "book", "export", "repair", "backfill", "record"):
        assert complete("tapewick", name, "bin") == {"binance:BTCUSDT"}, name
        assert complete("tapewick", name, "binance", ":", "BT") == {"BTCUSDT"}, name
    assert complete("tapewick", "candles", "binance", ":") == {"BTCUSDT"}
    assert complete("tapewick", "repair", *instrument, "bin") == {"binance:BTCUSDT"}, "it takes several"
    assert complete("tapewick", "candles", *instrument, "15") == {"15m"}
    assert "45m" in complete("tapewick", "candles", *instrument, "")
    assert complete("tapewick", "candles", *instrument, "1m", "--li") == {"--limit"}
    assert complete(
        "tapewick", "candles", *instrument, "1m", "--url", "http", ":", "//127.0.0.1", ":", "1", "--js"
    ) == {"--json"}
    assert complete("tapewick", "import", "--tf", "1M") == {"1M"}
    assert complete("tapewick", "config", "ch") == {"check"}
    assert complete("tapewick", "export", *instrument, "--format", "p") == {"parquet"}
    assert complete("tapewick", "import", "--format", "k") == {"kraken-trades"}


def test_C7_a_person_at_bash_presses_tab(run: Run, shell: tuple[Path, dict[str, str]]) -> None:
    script, env = shell
    terminal, theirs = os.openpty()
    bash = subprocess.Popen(
        ["bash", "--norc", "--noprofile", "-i"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=run.folder,
        env=env | {"TERM": "dumb", "PS1": "> "},
        start_new_session=True,
    )
    os.close(theirs)
    told = b""

    def until(text: bytes) -> None:
        nonlocal told
        while text not in told:
            told += os.read(terminal, 4096)

    try:
        os.write(terminal, f"source {script}; echo rea''dy\n".encode())
        until(b"ready")
        os.write(terminal, b"tapewick candles binance:BT\t")
        until(b"binance:BTCUSDT ")
        os.write(terminal, b"15\t")
        until(b"binance:BTCUSDT 15m ")
    finally:
        bash.kill()
        bash.wait()
        os.close(terminal)


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_C7_other_shells_get_every_command(run: Run, shell: str) -> None:
    script = run("completion", shell).stdout
    for name in COMMANDS:
        assert name in script
    assert "tapewick completion instruments" in script
    assert "45m" in script


# C1, C10 running


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        pytest.fail(process.communicate()[1])
    return line


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_C1_C3_C10_demo_prints_one_line_then_ends_on_a_signal(run: Run, number: signal.Signals, code: int) -> None:
    server = run.start("demo", "--port", "0", "--no-open", "--data", "live", "--rate", "2")
    try:
        line = first_line(server)
        found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        assert found
        assert "simulated" in line
        assert re.search(r"(native|reference) engine", line)
        assert "in use" in run("demo", "--port", found[1], "--no-open", "--data", "other", code=2).stderr
        assert "--url" in run("trades", "sim:BTCUSDT", "--data", "live", code=1).stderr
        busy = run("demo", "--port", "0", "--no-open", "--data", "live", code=1).stderr  # it has no --url
        assert "live is in use by another tapewick: stop it, or name another folder with --data" in busy
        url = found[0]
        rows = run("tail", "sim:BTCUSDT", "--url", url).stdout.splitlines()
        assert all(json.loads(row)["instrument"] == "sim:BTCUSDT" for row in rows)
        assert "did you mean" in run("tail", "sim:BTCUSDT", "--url", url, "--tf", "1mm", code=2).stderr
        assert "sim:NOPE" in run("candles", "sim:NOPE", "1m", "--url", url, code=2).stderr
        seqs = [
            json.loads(row)["seq"]
            for row in run("trades", "sim:BTCUSDT", "--url", url, "--limit", "0").stdout.splitlines()
        ]
        assert seqs == list(range(1, len(seqs) + 1))
    finally:
        server.send_signal(number)
        out, err = server.communicate(timeout=30)
    assert (server.returncode, out, err) == (code, "", "")


def test_C10_a_followed_tail_ends_with_130(run: Run) -> None:
    server = run.start("demo", "--port", "0", "--no-open", "--data", "live", "--rate", "50")
    try:
        found = re.search(r"http://\S+", first_line(server))
        assert found
        tail = run.start("tail", "sim:BTCUSDT", "--url", found[0], "--follow", "--limit", "1")
        assert tail.stdout is not None
        seqs = [json.loads(tail.stdout.readline())["seq"] for _ in range(50)]
        assert seqs == list(range(seqs[0], seqs[0] + 50))
        tail.send_signal(signal.SIGINT)
        tail.communicate(timeout=30)
        assert tail.returncode == 130
    finally:
        server.terminate()
        server.communicate(timeout=30)


def test_a_replay_ends_on_sigterm_with_what_it_committed(run: Run, capture: Path) -> None:
    replay = run.start("replay", str(capture), "--venue", "binance", "--speed", "1", "--data", "slow")
    folder = run.folder / "slow" / "tape.duckdb"
    while not folder.exists():
        assert replay.poll() is None, replay.communicate()[1]
        time.sleep(0.05)
    time.sleep(0.5)
    replay.terminate()
    _, err = replay.communicate(timeout=30)
    assert replay.returncode == 143, err
    assert "Traceback" not in err


# doctor, migrate


def test_doctor_knows_every_library_of_frames() -> None:
    from tapewick.commands.doctor import EXTRAS

    assert {name: EXTRAS[name] for name in ("polars", "pandas", "arrow")} == {
        "polars": "polars",
        "pandas": "pandas",
        "arrow": "pyarrow",
    }


def test_doctor_finds_a_sound_folder_sound(run: Run, filled: str) -> None:
    report = run("doctor", "--data", filled, "--port", "0", "--json").stdout
    findings = {finding["check"]: finding for finding in map(json.loads, report.splitlines())}
    assert (findings["data"]["state"], findings["data"]["detail"]) == ("ok", f"{filled} is sound, 1 tape")
    assert "planned" not in findings["extras"]["detail"]
    assert __version__ in findings["tapewick"]["detail"]
    assert findings["engine"]["detail"].startswith(("native", "reference"))


def test_doctor_leaves_the_log_where_it_is_when_the_file_is_the_damaged_one(run: Run, filled: str) -> None:
    path = run.folder / filled / "tape.duckdb"
    path.write_bytes(b"\0" * 12_288 + path.read_bytes()[12_288:])
    log = path.with_name("tape.duckdb.wal")
    log.write_bytes(b"a log of before")
    done = run("doctor", "--data", filled, "--port", "0", "--repair", code=4)
    assert "restore the folder from a backup" in done.stdout
    assert log.read_bytes() == b"a log of before"


def test_doctor_moves_a_damaged_log_aside_and_keeps_it(run: Run) -> None:
    recording = write_recording(run.folder / "long.log", 3000)
    replay = run.start("replay", str(recording), "--venue", "binance", "--speed", "50", "--data", "d")
    wal = run.folder / "d" / "tape.duckdb.wal"
    while not wal.exists() or wal.stat().st_size < 100_000:
        assert replay.poll() is None, replay.communicate()[1]
        time.sleep(0.05)
    replay.kill()
    replay.communicate()
    damaged = bytearray(wal.read_bytes())
    whole = list(entries(bytes(damaged)))
    start, size = whole[len(whole) // 2]
    damaged[start + 16 + size // 2] ^= 0xFF  # behind the entry's size and checksum
    wal.write_bytes(damaged)

    assert "tapewick doctor" in run("trades", "binance:BTCUSDT", "--data", "d", code=4).stderr
    assert "--repair" in run("doctor", "--data", "d", "--port", "0", code=4).stdout
    assert "is kept" in run("doctor", "--data", "d", "--port", "0", "--repair").stdout
    kept = [path.read_bytes() for path in (run.folder / "d").glob("*.wal.damaged*")]
    assert kept == [bytes(damaged)]
    run("replay", str(recording), "--venue", "binance", "--data", "d")
    assert len(run("trades", "binance:BTCUSDT", "--data", "d", "--limit", "0").stdout.splitlines()) == 3000


def test_migrate_goes_down_only_when_told_how_far(run: Run, filled: str) -> None:
    assert json.loads(run("migrate", "status", "--data", filled, "--json").stdout)["current"] is True
    assert "--to N" in run("migrate", "down", "--data", filled, code=2).stderr
    assert json.loads(run("coverage", "binance:BTCUSDT", "--data", filled, "--json").stdout)
    refused = run("migrate", "down", "--to", "0", "--data", filled, code=2).stderr
    assert all(word in refused for word in ("trades", "candles", "books", "--yes", filled))
    assert "books" in run("migrate", "down", "--to", "2", "--data", filled, code=2).stderr
    assert json.loads(run("migrate", "status", "--data", filled, "--json").stdout)["current"] is True
    run("migrate", "down", "--to", "0", "--yes", "--data", filled)
    assert f"migrate up --data {filled}" in run("coverage", "binance:BTCUSDT", "--data", filled, code=1).stderr
    told = json.loads(run("migrate", "status", "--data", filled, "--json").stdout)
    assert (told["version"], told["current"]) == (0, False)
    run("migrate", "up", "--data", filled)
    run("migrate", "down", "--to", "2", "--yes", "--data", filled)
    told = json.loads(run("migrate", "status", "--data", filled, "--json").stdout)
    assert (told["version"], told["current"]) == (2, False)
    run("migrate", "up", "--data", filled)
    told = json.loads(run("migrate", "status", "--data", filled, "--json").stdout)
    assert told == {"version": told["newest"], "newest": told["newest"], "current": True}
