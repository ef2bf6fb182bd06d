"""``completion``: what bash, zsh and fish need to complete commands, flags, instruments and timeframes."""

from __future__ import annotations

import argparse

from tapewick.commands.options import Parser
from tapewick.commands.output import write

__all__ = ["EXAMPLES", "options", "run"]

EXAMPLES = (
    'eval "$(tapewick completion bash)"                                        in ~/.bashrc',
    'eval "$(tapewick completion zsh)"                                         in ~/.zshrc',
    "tapewick completion fish > ~/.config/fish/completions/tapewick.fish",
)
WITH_INSTRUMENT = ("candles", "trades", "coverage", "tail", "verify")

_BASH = """\
_tapewick() {
  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} command=${COMP_WORDS[1]} words=
  case $COMP_CWORD:$command in
    1:*) words="@COMMANDS@" ;;
@CASES@
  esac
  if [ "$COMP_CWORD" -gt 1 ]; then
    case $before in
@VALUES@
    esac
    case $COMP_CWORD:$command in
      @INSTRUMENT_COMMANDS@) words="$words $(tapewick completion instruments 2>/dev/null)" ;;
      3:candles) words="$words @TIMEFRAMES@" ;;
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$word"))
  [ ${#COMPREPLY[@]} -gt 0 ] || COMPREPLY=($(compgen -f -- "$word"))
  declare -F __ltrim_colon_completions >/dev/null && __ltrim_colon_completions "$word"
}
complete -F _tapewick tapewick
"""


def options(parser: Parser) -> None:
    """Add the command's arguments to ``parser``."""
    parser.add_argument(
        "what",
        choices=("bash", "zsh", "fish", "instruments"),
        metavar="bash|zsh|fish|instruments",
        help="the shell; instruments prints what the running server or the data folder holds",
    )


def run(args: argparse.Namespace) -> int:
    """Print the script, or the instruments' ids one per line."""
    if args.what == "instruments":
        write("".join(f"{name}\n" for name in _instruments(args)).encode())
        return 0
    script = {"bash": _bash, "zsh": _zsh, "fish": _fish}[args.what]()
    write(script.encode())
    return 0


def _flags() -> dict[str, dict[str, tuple[str, list[str]]]]:
    """Per command, per flag: its help and the values it can take, where they are few."""
    from tapewick.commands import COMMANDS, parser_of

    found: dict[str, dict[str, tuple[str, list[str]]]] = {}
    for name in COMMANDS:
        found[name] = {}
        for action in parser_of(name)._actions:
            values = _values(action)
            for flag in action.option_strings:
                found[name][flag] = ((action.help or "").partition(" [")[0], values)
            if not action.option_strings and values:
                found[name][""] = ("", values)
    return found


def _values(action: argparse.Action) -> list[str]:
    from tapewick.timeframe import NAMES

    if "--tf" in action.option_strings:
        return list(NAMES)
    if action.choices:
        return [str(choice) for choice in action.choices]
    text = action.metavar if isinstance(action.metavar, str) else ""
    return text.split("|") if "|" in text and text == text.lower() and " " not in text else []


def _bash() -> str:
    from tapewick.commands import COMMANDS
    from tapewick.timeframe import NAMES

    cases, values = [], dict[str, list[str]]()
    for name, flags in _flags().items():
        own = [flag for flag in flags if flag] + (flags[""][1] if "" in flags else [])
        cases.append(f'    *:{name}) words="{" ".join(own)}" ;;')
        for flag, (_, choices) in flags.items():
            if flag and choices:
                values.setdefault(flag, choices)
    script = _BASH.replace("@COMMANDS@", " ".join(COMMANDS)).replace("@CASES@", "\n".join(cases))
    lines = (f'      {flag}) words="{" ".join(choices)}" ;;' for flag, choices in values.items())
    script = script.replace("@VALUES@", "\n".join(lines)).replace("@TIMEFRAMES@", " ".join(NAMES))
    return script.replace("@INSTRUMENT_COMMANDS@", "|".join(f"2:{name}" for name in WITH_INSTRUMENT))


def _zsh() -> str:
    return "autoload -U +X bashcompinit && bashcompinit\n" + _bash()


def _fish() -> str:
    from tapewick.commands import COMMANDS
    from tapewick.timeframe import NAMES

    lines = ["complete -c tapewick -f"]
    first = "complete -c tapewick -n __fish_use_subcommand"
    lines += [f"{first} -a {name} -d {_quoted(doc)}" for name, doc in COMMANDS.items()]
    for name, flags in _flags().items():
        seen = f"complete -c tapewick -n '__fish_seen_subcommand_from {name}'"
        for flag, (doc, choices) in flags.items():
            if not flag:
                lines.append(f"{seen} -a {_quoted(' '.join(choices))}")
                continue
            kind = f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}"
            lines.append(f"{seen} {kind} -d {_quoted(doc)}" + (f" -xa {_quoted(' '.join(choices))}" if choices else ""))
        if name in WITH_INSTRUMENT:
            lines.append(f"{seen} -a '(tapewick completion instruments 2>/dev/null)'")
        if name == "candles":
            lines.append(f"{seen} -a {_quoted(' '.join(NAMES))}")
        if name in ("replay", "import"):
            lines.append(f"{seen} -F")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _instruments(args: argparse.Namespace) -> list[str]:
    """From the server of these settings if one answers, else from their data folder; none on any trouble."""
    from tapewick.commands.from_folder import FolderReader
    from tapewick.commands.from_server import ServerReader
    from tapewick.commands.options import access, settings_of
    from tapewick.commands.reading import Reader
    from tapewick.commands.running import run as run_until_signal
    from tapewick.errors import TapewickError

    settings = settings_of(args)
    found: list[str] = []

    async def work() -> int:
        url = f"http://{settings.server.host}:{settings.server.port or 8080}"
        makers = (lambda: ServerReader(url, access(args)), lambda: FolderReader(settings))
        for make in makers:
            try:
                reader: Reader
                async with make() as reader:
                    found.extend(await reader.instruments())
                    return 0
            except TapewickError:
                continue  # a completion that cannot look something up offers nothing
        return 0

    run_until_signal(work())
    return found
