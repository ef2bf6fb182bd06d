"""``tapewick export``: the same file from a folder and from a server that owns it."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb

from tests.commands.tapes import tapewick
from tests.gateways.rig import BTC, running

FOLDER = "data"


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


async def test_folder_and_server_write_the_same(tmp_path: Path) -> None:
    async with running(tmp_path / FOLDER) as rig:
        await rig.tell(1, 3000)
        told = (await rig.get(f"/v1/candles?instrument={BTC}&tf=1m&limit=5000"))["candles"]
        url = rig.gateway.url
        done = await tapewick("export", BTC, "--tf", "1m", "--out", "server.parquet", "--url", url, cwd=tmp_path)
        assert done.code == 0, done.err
        assert "position" in done.err
        lines = await tapewick("export", BTC, "--url", url, cwd=tmp_path)
        refused = await tapewick("export", "no:such", "--url", url, cwd=tmp_path)
    done = await tapewick("export", BTC, "--tf", "1m", "--out", "folder.parquet", "--data", FOLDER, cwd=tmp_path)
    assert done.code == 0, done.err
    assert (tmp_path / "folder.parquet").read_bytes() == (tmp_path / "server.parquet").read_bytes()
    with duckdb.connect() as connection:
        rows = connection.execute(f"SELECT close, pos FROM '{tmp_path}/folder.parquet'").fetchall()
    assert [(format(close.normalize(), "f"), pos) for close, pos in rows] == [(r["close"], r["pos"]) for r in told]
    assert [json.loads(line)["seq"] for line in lines.out.splitlines()] == list(range(1, 3001))
    own = await tapewick("export", BTC, "--data", FOLDER, cwd=tmp_path)
    assert own.out == lines.out
    assert (refused.code, refused.out) == (2, "") and "no instrument 'no:such'" in refused.err
    assert files(tmp_path) == ["folder.parquet", "server.parquet"]


async def test_what_cannot_be_written_is_explained(tmp_path: Path) -> None:
    for words, code, told in (
        (["--out", "file.xls"], 2, "--format"),
        (["--data", "nowhere"], 2, "no data folder"),
        (["--url", "http://127.0.0.1:1"], 3, "is a server running there?"),
        (["--tf", "7m"], 2, "unknown timeframe"),
    ):
        done = await tapewick("export", BTC, *words, cwd=tmp_path)
        assert done.code == code, done.err
        assert told in done.err
        assert files(tmp_path) == []
