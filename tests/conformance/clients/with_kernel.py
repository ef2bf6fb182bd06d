"""Runs the cells of a script in a Jupyter kernel, one after the other: python with_kernel.py SCRIPT."""

import re
import sys
from pathlib import Path

from jupyter_client.manager import start_new_kernel

cells = re.split(r"^# %%.*$", Path(sys.argv[1]).read_text("utf-8"), flags=re.MULTILINE)[1:]
manager, client = start_new_kernel(kernel_name="python3")


def run(code: str) -> None:
    """Run a cell; its output is printed, an error ends this."""
    told = client.execute_interactive(code, timeout=120)["content"]
    if told["status"] != "ok":
        sys.exit("\n".join(told["traceback"]))


try:
    for cell in cells:
        run(cell)
    run("import asyncio; print(asyncio.get_running_loop().is_running(), 'loop')")
finally:
    client.stop_channels()
    manager.shutdown_kernel(now=True)
sys.stdout.write(f"{len(cells)} cells\n")
