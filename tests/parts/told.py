"""Says which servers a run used: part, version, process id and port, as soon as each runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

__all__ = ["told"]

_config: pytest.Config | None = None


def pytest_configure(config: pytest.Config) -> None:
    global _config
    _config = config


def told(line: str) -> None:
    """Write ``line`` to the terminal of the run, beside the names of the tests."""
    reporter = None if _config is None else _config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:  # a worker of a run in several processes; shown where the test fails
        print(line)  # noqa: T201
    else:
        reporter.write_line(f"\n{line}")
