"""One asynchronous piece of work, ended cleanly by SIGINT (130) or SIGTERM (143)."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

__all__ = ["run"]


def run(work: Coroutine[Any, Any, int]) -> int:
    """The exit code of ``work``; a signal cancels it, waits for it to drain, and decides the code."""
    import asyncio

    try:
        import uvloop
    except ImportError:  # not on Windows
        factory = None
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(_until_signal(work))


async def _until_signal(work: Coroutine[Any, Any, int]) -> int:
    import asyncio
    import signal

    received = 0
    task = asyncio.ensure_future(work)

    def stop(number: int) -> None:
        nonlocal received
        if not received:
            received = number
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop, number)
    try:
        code = await task
    except asyncio.CancelledError:
        if not received:
            raise
        code = 0
    return 128 + received if received else code
