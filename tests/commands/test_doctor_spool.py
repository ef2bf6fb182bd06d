"""``tapewick doctor`` tells of trades that wait on disk, and of damage that was set aside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tapewick.cli import main
from tapewick.spool import Spool


def findings(capsys: pytest.CaptureFixture[str], folder: Path) -> list[dict[str, str]]:
    capsys.readouterr()
    main(["doctor", "--data", str(folder), "--port", "0", "--json", "--no-config"])
    told = map(json.loads, capsys.readouterr().out.splitlines())
    return [one for one in told if one["check"] == "spool"]


def test_doctor_tells_of_a_spool(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert findings(capsys, tmp_path) == []
    spool = Spool(tmp_path / "spool", 1000)
    spool.append([b"first", b"second"])
    spool.close()
    [waiting] = findings(capsys, tmp_path)
    assert waiting["state"] == "warn" and "35 bytes" in waiting["detail"]
    again = Spool(tmp_path / "spool", 1000)
    again.adopt()
    again.read()
    again.drop(keep=True)
    again.close()
    [aside] = findings(capsys, tmp_path)
    assert aside["state"] == "warn" and "1 damaged segment" in aside["detail"]
