"""Run the server in the foreground for `make run`, with its pid where `make stop` looks.

make passes a SIGTERM on to its recipe and no further; this passes it on to the server and waits until it has drained.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

LOGS = Path(__file__).resolve().parent.parent / "logs"
STOPPED = (0, 130, 143, -signal.SIGINT, -signal.SIGTERM)


def main(command: list[str]) -> int:
    """The exit code of ``command``; 0 when it was asked to end."""

    def forward(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGTERM:  # a Ctrl-C reaches the server from the terminal itself
            server.send_signal(number)

    signals = (signal.SIGINT, signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    server = subprocess.Popen(command, preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, signals))
    for number in signals:
        signal.signal(number, forward)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    LOGS.mkdir(exist_ok=True)
    note = LOGS / f"run-{server.pid}.pid"  # one each: a second run must not hide the first from `make stop`
    note.touch()
    code = server.wait()
    note.unlink(missing_ok=True)
    return 0 if code in STOPPED else code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
