"""The public interface is what ``__all__`` says, small, complete and lazy."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import tapewick

ROOT = Path(__file__).parent.parent


def test_public_names_resolve_and_are_few() -> None:
    assert len(tapewick.__all__) <= 25
    assert tapewick.__all__ == sorted(tapewick.__all__, key=lambda name: (not name.isupper(), name))
    for name in tapewick.__all__:
        assert getattr(tapewick, name) is not None
    assert set(tapewick._HOME) == set(tapewick.__all__) - {"__version__"}


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nope'"):
        tapewick.Nope  # noqa: B018


def test_version_is_that_of_the_package() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert tapewick.__version__ == declared


def test_importing_the_package_imports_nothing_else() -> None:
    code = "import sys, tapewick; print(*(m for m in sys.modules if m.startswith('tapewick') or m == 'numpy'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT / "src", check=True)
    assert done.stdout.split() == ["tapewick"]


@pytest.mark.parametrize("path", sorted((ROOT / "src" / "tapewick").rglob("*.py")), ids=str)
def test_every_public_name_of_a_module_exists(path: Path) -> None:
    text = path.read_text("utf-8")
    if "__all__" not in text:
        return
    from importlib import import_module

    module = import_module(".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__"))
    missing = [name for name in module.__all__ if not hasattr(module, name)]
    assert not missing
