"""``completion``: what bash, zsh and fish need to complete commands, flags, instruments and timeframes."""

from __future__ import annotations

import argparse

from tapewick.commands.options import Parser
from tapewick.commands.output import write

__all__ = ["EXAMPLES", "options", "run"]

EXAMPLES = (
    'eval "$(tapewick completion bash)"                                        # in ~/.bashrc',
    'eval "$(tapewick completion zsh)"                                         # in ~/.zshrc',
    "tapewick completion fish > ~/.config/fish/completions/tapewick.fish",
)
_BASH = """\
_tapewick() {
  local i part word=${COMP_WORDS[0]} before= command= count=0 apart=1 words=
  for ((i = 1; i <= COMP_CWORD; i++)); do
    part=${COMP_WORDS[$i]}
    case $part in
      :*) word=$word$part apart= ;;
      *)
        if [ -n "$apart" ] || [ -z "$part" ]; then
          before=$word word=$part count=$((count + 1)) apart=1
          [ $count -ne 2 ] || command=$before
        else
          word=$word$part apart=1
        fi ;;
    esac
  done
  case $count:$command in
    1:*) words="@COMMANDS@" ;;
@CASES@
  esac
  if [ "$count" -gt 1 ]; then
    case $command:$before in
@VALUES@
    esac
    case $word:$count:$command in
      -*) ;;
      @INSTRUMENT_COMMANDS@) words="$words $(tapewick completion instruments 2>/dev/null)" ;;
      *:3:candles) words="$words @TIMEFRAMES@" ;;
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$word"))
  [ ${#COMPREPLY[@]} -gt 0 ] || COMPREPLY=($(compgen -f -- "$word"))
  case ${COMP_WORDBREAKS-} in *:*) ;; *) return ;; esac
  case $word in *:*) part=${word%:*}: ;; *) return ;; esac
  for ((i = 0; i < ${#COMPREPLY[@]}; i++)); do COMPREPLY[$i]=${COMPREPLY[$i]#"$part"}; done
}
complete -F _tapewick tapewick
"""
# Readline takes "venue:SYMBOL" for three words, and completes the last: words are joined again, and of what is
# offered the part before the colon is left out. Other shells have no COMP_WORDBREAKS and split at blanks only.


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
    values = text.split("|") if "|" in text and text == text.lower() and " " not in text else []
    return [value for value in values if value != "…"]


def _bash() -> str:
    from tapewick.commands import COMMANDS
    from tapewick.timeframe import NAMES

    cases, values = [], dict[str, dict[str, list[str]]]()
    for name, flags in _flags().items():
        own = [flag for flag in flags if flag] + (flags[""][1] if "" in flags else [])
        cases.append(f'    *:{name}) words="{" ".join(own)}" ;;')
        for flag, (_, choices) in flags.items():
            if flag and choices:
                values.setdefault(flag, {}).setdefault(" ".join(choices), []).append(name)
    lines = []
    for flag, sets in values.items():  # what differs from command to command is told apart
        for offered, names in sets.items():
            places = "|".join(f"{name}:{flag}" for name in (names if len(sets) > 1 else "*"))
            lines.append(f'      {places}) words="{offered}" ;;')
    script = _BASH.replace("@COMMANDS@", " ".join(COMMANDS)).replace("@CASES@", "\n".join(cases))
    script = script.replace("@VALUES@", "\n".join(lines)).replace("@TIMEFRAMES@", " ".join(NAMES))
    told = "|".join(f"*:{'*' if many else 2}:{name}" for name, many in _with_instrument().items())
    return script.replace("@INSTRUMENT_COMMANDS@", told)


def _with_instrument() -> dict[str, bool]:
    """The commands that are told an instrument, and whether that may be several."""
    from tapewick.commands import COMMANDS, parser_of

    places = ((name, action) for name in COMMANDS for action in parser_of(name)._positionals._group_actions)
    return {name: action.nargs is not None for name, action in places if action.dest in ("instrument", "instruments")}


def _zsh() -> str:
    return "autoload -U +X bashcompinit && bashcompinit\n" + _bash()


def _fish() -> str:
    from tapewick.commands import COMMANDS
    from tapewick.timeframe import NAMES

    lines = ["complete -c tapewick -f"]
    first, named = "complete -c tapewick -n __fish_use_subcommand", _with_instrument()
    lines += [f"{first} -a {name} -d {_quoted(doc)}" for name, doc in COMMANDS.items()]
    for name, flags in _flags().items():
        seen = f"complete -c tapewick -n '__fish_seen_subcommand_from {name}'"
        for flag, (doc, choices) in flags.items():
            if not flag:
                lines.append(f"{seen} -a {_quoted(' '.join(choices))}")
                continue
            kind = f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}"
            lines.append(f"{seen} {kind} -d {_quoted(doc)}" + (f" -xa {_quoted(' '.join(choices))}" if choices else ""))
        if name in named:
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
