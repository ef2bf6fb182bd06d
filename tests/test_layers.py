"""Who may import whom: the contracts in pyproject.toml hold, and they bite."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [
        str(Path(sys.executable).parent / "lint-imports"),
        "--no-cache",
        "--config",
        str(folder / "pyproject.toml"),
    ]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder / "src")


def test_layers_hold() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_import_upwards_is_found(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    package = tmp_path / "src" / "tapewick"
    for source in (ROOT / "src" / "tapewick").rglob("*.py"):
        copy = package / source.relative_to(ROOT / "src" / "tapewick")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(source.read_text("utf-8"), "utf-8")
    with (package / "clock.py").open("a", encoding="utf-8") as file:
        file.write("\nfrom tapewick import pipeline\n")
    done = lint(tmp_path)
    assert done.returncode == 1
    assert "tapewick.clock -> tapewick.pipeline" in done.stdout
