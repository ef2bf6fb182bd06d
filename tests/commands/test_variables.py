"""Variables of flags: of the environment, of an env file, and what is typed beats both."""

from __future__ import annotations

from pathlib import Path

import pytest

from tapewick.cli import main
from tapewick.commands import parser_of
from tapewick.commands.options import access
from tapewick.commands.variables import typed
from tapewick.errors import ConfigError

WORDS = ["sim:BTCUSDT", "1m"]
URL, OTHER = "http://127.0.0.1:1", "http://127.0.0.1:2"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, in which the command line starts without any variable of its own."""
    monkeypatch.chdir(tmp_path)
    for name in ("URL", "TOKEN", "TOKEN_FILE", "TLS_CA", "JSON", "SOURCE", "LIMIT", "ENV_FILE", "COLOR", "SHARD"):
        monkeypatch.delenv(f"TAPEWICK_{name}", raising=False)
    return tmp_path


@pytest.mark.parametrize("named", [False, True])
def test_an_env_file_sets_flags_too(tmp_path: Path, named: bool) -> None:
    lines = f"TAPEWICK_URL={URL}\nTAPEWICK_TOKEN='of-the-file'\nexport TAPEWICK_JSON=1\nTAPEWICK_LIMIT=7\n"
    (tmp_path / ("roles.env" if named else ".env")).write_text(f"{lines}TAPEWICK_SOURCE=binance:A, binance:B\n")
    more = ["--env-file", "roles.env"] if named else []
    args = parser_of("candles").parse_args([*WORDS, *more])
    assert (args.url, args.token, args.json, args.limit) == (URL, "of-the-file", True, 7)
    assert access(args).token == "of-the-file"
    assert access(parser_of("completion").parse_args(["instruments", *more])).token == "of-the-file"
    assert parser_of("serve").parse_args(more).source == ["binance:A", "binance:B"]
    if named:
        assert parser_of("candles").parse_args(WORDS).url is None


def test_the_file_may_be_named_by_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.env").write_text("TAPEWICK_LIMIT=3\n")
    (tmp_path / "other.env").write_text("TAPEWICK_LIMIT=4\n")
    monkeypatch.setenv("TAPEWICK_ENV_FILE", "mine.env")
    assert parser_of("candles").parse_args(WORDS).limit == 3
    assert parser_of("candles").parse_args([*WORDS, "--env-file", "other.env"]).limit == 4


def test_what_is_typed_beats_the_environment_and_that_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text(f"TAPEWICK_URL={URL}\nTAPEWICK_TOKEN=of-the-file\nTAPEWICK_LIMIT=7\n")
    (tmp_path / "token").write_text("of-the-token-file\n")
    monkeypatch.setenv("TAPEWICK_URL", OTHER)
    monkeypatch.setenv("TAPEWICK_TOKEN_FILE", "token")
    args = parser_of("candles").parse_args([*WORDS, "--limit", "9"])
    assert (args.url, args.limit, access(args).token) == (OTHER, 9, "of-the-token-file")
    assert typed(args, "limit") and not typed(args, "url") and not typed(args, "token")
    args = parser_of("candles").parse_args([*WORDS, "--token", "of-the-flag"])
    assert access(args).token == "of-the-flag"


def test_a_typed_folder_beats_the_variable_of_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAPEWICK_URL", URL)
    for command, words in (
        ("candles", WORDS),
        ("trades", WORDS[:1]),
        ("coverage", WORDS[:1]),
        ("export", WORDS[:1]),
        ("verify", WORDS[:1]),
        ("repair", WORDS[:1]),
        ("backfill", [*WORDS[:1], "--from", "0"]),
    ):
        assert parser_of(command).parse_args(words).url == URL
        assert parser_of(command).parse_args([*words, "--data", "d"]).url is None
        with pytest.raises(ConfigError, match="--url and --data"):
            parser_of(command).parse_args([*words, "--data", "d", "--url", OTHER])
    monkeypatch.setenv("TAPEWICK_DATA__DIR", "d")  # of two variables that of the server
    assert parser_of("candles").parse_args(WORDS).url == URL
    assert parser_of("candles").parse_args([*WORDS, "--url", OTHER]).url == OTHER


def test_the_folder_is_what_is_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text(f"TAPEWICK_URL={URL}\n")
    assert main(["candles", *WORDS]) == 3, "the server of the file cannot be reached"
    for words in (["candles", *WORDS], ["export", WORDS[0]], ["repair", WORDS[0]]):
        capsys.readouterr()
        assert main([*words, "--data", "nowhere"]) in (1, 2)
        assert "there is no data folder nowhere" in capsys.readouterr().err
    assert main(["candles", *WORDS, "--data", "d", "--url", URL]) == 2


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("LIMIT", "many", "TAPEWICK_LIMIT (.env): 'many' is not a whole number"),
        ("COLOR", "alway", "did you mean always?"),
        ("JSON", "ture", "TAPEWICK_JSON (.env): 'ture' is neither true nor false"),
    ],
)
def test_a_value_that_a_flag_does_not_take_names_its_variable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, value: str, says: str
) -> None:
    (tmp_path / ".env").write_text(f"TAPEWICK_{name}={value}\n")
    assert main(["candles", *WORDS]) == 2
    err = capsys.readouterr().err
    assert says in err and f"TAPEWICK_{name} (.env)" in err and err.count("\n") == 1


def test_arguments_show_no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAPEWICK_NOT_A_FLAG", "a secret of somebody else")
    args = parser_of("candles").parse_args(WORDS)
    assert "somebody" not in repr(args) and "somebody" not in str(vars(args))


def test_a_key_has_no_source_of_collectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TAPEWICK_SOURCE", "binance:BTCUSDT")
    assert main(["keys", "create", "--data", str(tmp_path)]) == 0
    capsys.readouterr()
    assert main(["keys", "list", "--data", str(tmp_path), "--json"]) == 0
    assert "binance" not in capsys.readouterr().out
