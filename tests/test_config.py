"""Settings: precedence, errors with suggestions, secrets; C6."""

from __future__ import annotations

from pathlib import Path

import pytest

from tapewick import config
from tapewick.config import SETTINGS, load, shown
from tapewick.errors import ConfigError
from tapewick.settings import Settings


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tests start where no settings file lies."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def environ(home: Path, **names: str) -> dict[str, str]:
    return {"HOME": str(home), **names}


def test_defaults_are_the_declared_ones(tmp_path: Path) -> None:
    loaded = load(environ=environ(tmp_path))
    assert loaded.settings == Settings()
    assert set(loaded.origins.values()) == {"default"}
    assert (loaded.settings.server.host, loaded.settings.server.port) == ("127.0.0.1", 8080)


def test_C6_each_origin_beats_the_ones_below_it(tmp_path: Path) -> None:
    user = tmp_path / ".config" / "tapewick"
    user.mkdir(parents=True)

    def port() -> tuple[int, str]:
        loaded = load(flags, environ=names)
        return loaded.settings.server.port, loaded.origins["server.port"]

    flags: dict[str, object] = {}
    names = environ(tmp_path)
    (user / "tapewick.toml").write_text("[server]\nport = 1001\n")
    assert port() == (1001, str(user / "tapewick.toml"))
    Path("tapewick.toml").write_text("[server]\nport = 1002\n")
    assert port() == (1002, "tapewick.toml")
    Path(".env").write_text("# comment\nexport TAPEWICK_SERVER__PORT='1003'\n")
    assert port() == (1003, ".env")
    names["TAPEWICK_SERVER__PORT"] = "1004"
    assert port() == (1004, "environment")
    flags["server.port"] = "1005"
    assert port() == (1005, "flag")


def test_no_config_and_config_replace_the_files(tmp_path: Path) -> None:
    Path("tapewick.toml").write_text("[server]\nport = 1002\n")
    Path("other.toml").write_text("[server]\nport = 1007\n")
    names = environ(tmp_path)
    assert load(environ=names, no_config=True).settings.server.port == 8080
    assert load(environ=names, config="other.toml").settings.server.port == 1007
    with pytest.raises(ConfigError, match=r"cannot read missing\.toml"):
        load(environ=names, config="missing.toml")


def test_env_file_is_used_instead_of_dotenv(tmp_path: Path) -> None:
    Path(".env").write_text("TAPEWICK_SERVER__PORT=1\n")
    Path("prod.env").write_text('TAPEWICK_SIM__SYMBOLS="BTCUSDT, ETHUSDT"\n')
    loaded = load(environ=environ(tmp_path), env_file="prod.env")
    assert loaded.settings.server.port == 8080
    assert loaded.settings.sim.symbols == ("BTCUSDT", "ETHUSDT")
    assert loaded.origins["sim.symbols"] == "prod.env"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[sever]\nport = 1\n", r"unknown section \[sever\] \(did you mean server\?\)"),
        ("[server]\nprot = 1\n", r"unknown key server\.prot \(did you mean server\.port\?\)"),
        ('[server]\nport = "x"\n', r"server\.port \(tapewick\.toml\): 'x' is not a number"),
        ("[server]\nport = true\n", r"True is not of type int"),
        ("[server]\nport = 70000\n", r"server\.port is 70000 .* between 0 and 65535"),
        ('[engine]\nkind = "nativ"\n', r"'nativ' is none of auto, native, reference \(did you mean native\?\)"),
        ("[sim]\nsymbols = [1]\n", r"sim\.symbols .* not a list of texts"),
        ("[server\n", r"tapewick\.toml is not TOML"),
    ],
)
def test_C6_a_wrong_file_is_one_line_with_a_remedy(tmp_path: Path, text: str, said: str) -> None:
    Path("tapewick.toml").write_text(text)
    with pytest.raises(ConfigError, match=said) as caught:
        load(environ=environ(tmp_path))
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("TAPEWICK_SERVER__PROT", "TAPEWICK_SERVER__PORT"),
        ("TAPEWICK_SERVER_PORT", "TAPEWICK_SERVER__PORT"),
        ("TAPEWICK_PORT", "TAPEWICK_SERVER__PORT"),
        ("TAPEWICK_DATA", "TAPEWICK_DATA__DIR"),
    ],
)
def test_C6_a_misspelt_variable_is_never_ignored(tmp_path: Path, name: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=rf"unknown setting {name} \(did you mean {meant}\?\)"):
        load(environ=environ(tmp_path, **{name: "1"}))


def test_variables_of_tests_and_flags_are_not_settings(tmp_path: Path) -> None:
    names = environ(tmp_path, TAPEWICK_TESTDATA="/x", TAPEWICK_DEBUG="1", TAPEWICK_LIMIT="3", TAPEWICK_KILLS="5")
    assert load(environ=names).settings == Settings()


def test_names_of_older_systems_still_work(tmp_path: Path) -> None:
    names = environ(tmp_path, BINANCE_BASE_URL="http://127.0.0.1:1", BINANCE_WEBSOCKET_BASE_URL="ws://127.0.0.1:2")
    assert load(environ=names).settings.binance.rest_url == "http://127.0.0.1:1"
    names["TAPEWICK_BINANCE__REST_URL"] = "http://127.0.0.1:3"
    assert load(environ=names).settings.binance.rest_url == "http://127.0.0.1:3"


def test_secrets_come_from_files_and_are_not_shown(tmp_path: Path) -> None:
    Path("secret").write_text("https://user:hunter2@proxy.test/key/abc?token=xyz\n")
    names = environ(tmp_path, TAPEWICK_BINANCE__REST_URL_FILE="secret")
    value = load(environ=names).settings.binance.rest_url
    assert value.endswith("token=xyz")
    declared = next(setting for setting in SETTINGS if setting.key == "binance.rest_url")
    text = str(shown(declared, value))
    assert "proxy.test" in text
    assert not any(part in text for part in ("hunter2", "abc", "xyz"))
    with pytest.raises(ConfigError, match="unknown setting TAPEWICK_SERVER__PORT_FILE"):
        load(environ=environ(tmp_path, TAPEWICK_SERVER__PORT_FILE="secret"))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.test"])
def test_SC2_a_bind_beyond_loopback_is_refused_without_authentication(tmp_path: Path, host: str) -> None:
    with pytest.raises(ConfigError, match="clients need no token"):
        load({"server.host": host}, environ=environ(tmp_path))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2"])
def test_SC2_with_tokens_any_address_may_be_listened_on(tmp_path: Path, host: str) -> None:
    names = environ(tmp_path, TAPEWICK_SERVER__TOKENS="tok_0123456789abcdef")
    assert load({"server.host": host, "grpc.host": host}, environ=names).settings.server.host == host


def test_SC4_tokens_are_never_printed(tmp_path: Path) -> None:
    Path("tokens").write_text("tok_first://user@x, tok_second_0123456789\n")
    value = load(environ=environ(tmp_path, TAPEWICK_SERVER__TOKENS_FILE="tokens")).settings.server.tokens
    assert value == ("tok_first://user@x", "tok_second_0123456789")
    declared = next(setting for setting in SETTINGS if setting.key == "server.tokens")
    assert shown(declared, value) == ["***", "***"]
    Path("tapewick.toml").write_text('[server]\ntokens = ["tok_third_0123456789", 5]\n')
    with pytest.raises(ConfigError, match=r"server\.tokens .*not of type list") as error:
        load(environ=environ(tmp_path))
    assert "tok_third" not in str(error.value) and error.value.__cause__ is None


def test_every_setting_is_declared_once_with_a_sentence() -> None:
    keys = [setting.key for setting in SETTINGS]
    assert len(keys) == len(set(keys)) == sum(len(section) for section in Settings())
    for setting in SETTINGS:
        assert setting.doc[0].isupper() and setting.doc.endswith("."), setting.key
        assert config._typed(setting.type, setting.default) == setting.default, setting.key
