"""The web page: files that the web build left in ``webapp/``, served with their cache rules.

Names under ``assets/`` carry a hash of their content and may be kept for ever; everything
else is asked for again each time. Files are few and small, so they are held in memory.
"""

from __future__ import annotations

import mimetypes
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from litestar import Request, Response, get
from litestar.exceptions import NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from tapewick.gateways._auth import PUBLIC

__all__ = ["WEBAPP", "handlers"]

WEBAPP = Path(__file__).parent / "webapp"
NOT_BUILT = (
    "<!doctype html><html lang=en><title>tapewick</title><p>The web page is not built: run <code>make web</code>, "
    'then start again. The API is at <a href="/docs">/docs</a>.'
)
FOR_EVER = "public, max-age=31536000, immutable"
AnyRequest = Request[Any, Any, Any]


class File(NamedTuple):
    """A file of the page as it is answered: bytes, type, ETag and how long a browser may keep it."""

    content: bytes
    media_type: str
    etag: str
    cache: str


def _load(folder: Path) -> dict[str, File]:
    """Every file of ``folder`` by its path; what a link leads out of it is not served."""
    files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and path.resolve().is_relative_to(folder.resolve()) and not path.name.startswith("."):
            content = path.read_bytes()
            media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
            cache = FOR_EVER if name.startswith("assets/") else "no-cache"
            files[name] = File(content, media_type, f'"{sha256(content).hexdigest()[:16]}"', cache)
    return files


def _response(request: AnyRequest, file: File) -> Response[bytes]:
    headers = {"etag": file.etag, "cache-control": file.cache}
    if request.headers.get("if-none-match") == file.etag:
        return Response(b"", status_code=304, headers=headers, media_type=file.media_type)
    return Response(file.content, headers=headers, media_type=file.media_type)


def handlers(folder: Path = WEBAPP) -> list[HTTPRouteHandler]:
    """Routes ``/`` and ``/PATH`` for the files in ``folder``."""
    files = _load(folder) if folder.is_dir() else {}

    @get("/", include_in_schema=False, opt=PUBLIC)
    async def page(request: AnyRequest) -> Response[bytes]:
        if "index.html" not in files:
            return Response(NOT_BUILT.encode(), media_type="text/html", headers={"cache-control": "no-store"})
        return _response(request, files["index.html"])

    @get("/{path:path}", include_in_schema=False, opt=PUBLIC)
    async def asset(request: AnyRequest, path: FromPath[str]) -> Response[bytes]:
        file = files.get(path.removeprefix("/"))
        if file is None:
            raise NotFoundException
        return _response(request, file)

    return [page, asset]
