"""Generates the Python code of ``proto/`` into ``src/tapewick/v1``; ``--check`` only compares.

The schema of the bus, of binary frames and of gRPC is committed as generated code, so that nobody needs a
protobuf compiler to install tapewick. Exit code 1 when ``--check`` finds a difference.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "src"
FILES = ("tapewick/v1/market.proto", "tapewick/v1/service.proto")
LEGACY = "aggregator.proto"


def generate(folder: Path) -> dict[str, bytes]:
    """Path below ``src`` to content of each generated file."""
    from grpc_tools import protoc

    outputs = [f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python")]
    legacy = folder / "tapewick" / "v1"
    legacy.mkdir(parents=True)
    runs = (
        [*outputs[:2], FILES[0]],
        [*outputs, FILES[1]],
        [f"--python_out={legacy}", f"--pyi_out={legacy}", LEGACY],
    )
    for run in runs:
        if protoc.main(["protoc", f"-I{ROOT / 'proto'}", f"-I{_standard()}", *run]):
            raise SystemExit(1)
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*_pb2*.py*"))}


def _standard() -> Path:
    """Where the compiler keeps google/protobuf/*.proto."""
    import grpc_tools

    return Path(grpc_tools.__file__).parent / "_proto"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as folder:
        made = generate(Path(folder))
    stale = [name for name, content in made.items() if _read(OUT / name) != content]
    for name in stale:
        if check:
            print(f"{name} is not what proto/ says; run: python scripts/protoc.py", file=sys.stderr)
        else:
            (OUT / name).write_bytes(made[name])
            print(name)
    return int(check and bool(stale))


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


if __name__ == "__main__":
    raise SystemExit(main())
