"""A venue's public archive on loopback: zips made in the test, with the checksums published beside them."""

from __future__ import annotations

import hashlib
import io
import threading
import zipfile
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

__all__ = ["ArchiveServer", "zipped"]


def zipped(text: str | bytes, name: str = "data.csv", method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        archive.writestr(name, text)
    return out.getvalue()


class ArchiveServer:
    """Serves ``files`` by path; ``fail`` answers a path with these statuses first. ``asked`` counts requests."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.fail: dict[str, list[int]] = {}
        self.asked: Counter[str] = Counter()
        served = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                served.asked[self.path] += 1
                planned = served.fail.get(self.path)
                body = served.files.get(self.path)
                status = planned.pop(0) if planned else 200 if body is not None else 404
                body = body if status == 200 and body is not None else b"<html>no</html>"
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def publish(self, path: str, text: str | bytes, *, sha256: str | None = None) -> bytes:
        """Put a zip of ``text`` at ``path`` with its checksum, or with another; the zip."""
        data = zipped(text, path.rpartition("/")[2].replace(".zip", ".csv"))
        self.files[f"/{path}"] = data
        digest = sha256 or hashlib.sha256(data).hexdigest()
        self.files[f"/{path}.CHECKSUM"] = f"{digest}  {path.rpartition('/')[2]}\n".encode()
        return data

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
