"""The OpenAPI document is true: Schemathesis asks every route what the document allows, and what it does not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.conformance import environments
from tests.gateways.rig import BTC, ETH, running

pytestmark = pytest.mark.timeout(900)  # the first run on a machine installs the client

EXAMPLES = 12  # per route and phase
NOT_ASKED = "/api/|/fapi/|/binance|/v1/repair"  # another API's document is its own; repairs do work


async def test_every_answer_is_as_documented(tmp_path: Path) -> None:
    python = await asyncio.to_thread(environments.python, "schemathesis")
    async with running(tmp_path / "data", ids=(BTC, ETH)) as rig:
        await rig.tell(1, 3000)
        done = await asyncio.create_subprocess_exec(
            python.with_name("schemathesis"),
            "run",
            f"{rig.gateway.url}/schema/openapi.json",
            f"--exclude-path-regex={NOT_ASKED}",
            f"--max-examples={EXAMPLES}",
            "--phases=examples,coverage,fuzzing",
            "--checks=not_a_server_error,content_type_conformance,response_schema_conformance,status_code_conformance",
            "--seed=1",
            "--generation-deterministic",
            "--no-color",
            "--suppress-health-check=all",
            cwd=tmp_path,
            stdout=-1,
            stderr=-2,
        )
        out, _ = await done.communicate()
    assert done.returncode == 0, out.decode()[:12000]
