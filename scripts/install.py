"""Make the virtual environment and install requirements.lock into it, every file checked by its hash.

Standard library only: this is the first thing that runs on a fresh machine.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
PIP = ("-m", "pip", "install", "-q", "--require-hashes", "--no-deps", "-r")


def main(folder: Path) -> int:
    """Install into ``folder``; 0 when everything is there."""
    if sys.version_info < (3, 11):  # noqa: UP036 (this runs before anything has checked it)
        return fail(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}: make PYTHON=python3.11 …")
    print("tapewick: installing Python packages (hash-checked)", flush=True)
    python = folder / "bin" / "python"
    if not usable(python):
        try:
            venv.EnvBuilder(with_pip=True, clear=folder.exists(), symlinks=True).create(folder)
        except subprocess.CalledProcessError:
            return fail("the venv module is incomplete: apt-get install python3-venv")
    if not (install_with_uv(folder) or install_with_pip(python)):
        return fail("the Python packages could not be installed; is the package index reachable?")
    link(folder, python)
    (folder / ".ready").touch()
    return 0


def usable(python: Path) -> bool:
    """Whether the environment's interpreter starts and has pip."""
    return python.exists() and subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode == 0


def install_with_uv(folder: Path) -> bool:
    """The fast way: pip fetches the locked uv, uv fetches the rest."""
    lines = LOCK.read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("uv=="))
    end = next(i for i, line in enumerate(lines[start:], start) if not line.endswith("\\"))
    only = folder / "uv.lock.txt"
    only.write_text("\n".join(lines[start : end + 1]) + "\n")
    if not succeeds(folder / "bin" / "python", *PIP, only):
        return False
    uv, python = folder / "bin" / "uv", folder / "bin" / "python"
    return succeeds(uv, "pip", "sync", "-q", "--require-hashes", "--python", python, LOCK)


def install_with_pip(python: Path) -> bool:
    """The way that needs nothing but pip."""
    print("tapewick: uv did not work here, using pip", flush=True)
    return succeeds(python, *PIP, LOCK)


def succeeds(*words: str | Path) -> bool:
    """Whether the command ``words`` ends with 0."""
    return subprocess.run([str(word) for word in words]).returncode == 0


def link(folder: Path, python: Path) -> None:
    """Let the environment run the sources in src/: a path file, and the ``tapewick`` command."""
    query = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip())
    (site / "tapewick-sources.pth").write_text(f"{ROOT / 'src'}\n")
    script = folder / "bin" / "tapewick"
    script.write_text(f"#!{python.absolute()}\nimport sys\n\nfrom tapewick.cli import main\n\nsys.exit(main())\n")
    script.chmod(0o755)


def fail(text: str) -> int:
    """Print one line, return 1."""
    print(f"tapewick: {text}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
