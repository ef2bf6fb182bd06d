"""The one text file inside a zip archive, as a stream that cannot grow beyond what real archives are.

Nothing is unpacked to disk and no name inside an archive is used. What an archive claims is
checked before anything of it is expanded, and what comes out is held to the claim: ``zipfile``
gives no more bytes than were claimed and compares the checksum at their end.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path

from tapewick.errors import BadPayload

__all__ = ["RATIO", "TEXT_BYTES", "ZipText", "check_zip"]

TEXT_BYTES = 64 << 30  # a month of the busiest market's trades is about 12 GiB
RATIO = 100  # digits and commas shrink to a sixth; a bomb to a thousandth
SMALL = 1 << 20  # below this the ratio does not matter
_DIRECTORY_BYTES = 64 << 10
_END = b"PK\x05\x06"
_END64 = b"PK\x06\x06"


class ZipText:
    """``read`` gives the text in pieces; ``stored`` is how many bytes of the archive are used up.

    ``fault`` says why it stopped before the end, empty if it did not. Raises ``BadPayload`` for what is no
    archive of one text file, or claims to expand beyond ``TEXT_BYTES`` or ``RATIO``.
    """

    chunk = 256 << 10

    def __init__(self, path: Path) -> None:
        self.fault = ""
        self.stored = 0
        self.closed = False
        self._size = path.stat().st_size
        self._raw = path.open("rb")
        try:
            _check_directory(path, self._size)
            archive = zipfile.ZipFile(self._raw)
            self._member = archive.open(_only_member(path, archive))
        except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
            self._raw.close()
            raise BadPayload(f"{path} is a damaged zip archive ({error}); fetch it again") from error
        except BadPayload:
            self._raw.close()
            raise

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes of text, ``b""`` at the end."""
        try:
            data = self._member.read(size)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            self.fault = f"damaged zip data ({error})"
            return b""
        self.stored = self._raw.tell() if data else self._size
        return data

    def feed(self, data: bytes) -> bytes:
        """The text itself: reading has expanded it."""
        return data

    def end(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Release the file."""
        self.closed = True
        self._member.close()
        self._raw.close()


def check_zip(path: Path) -> None:
    """Read an archive to its end, giving nothing away. Raises ``BadPayload`` if any of it is not as claimed."""
    text = ZipText(path)
    try:
        while text.read(1 << 20):
            pass
    finally:
        text.close()
    if text.fault:
        raise BadPayload(f"{path}: {text.fault}; nothing of it was imported, fetch it again")


def _check_directory(path: Path, size: int) -> None:
    """Refuse a list of contents that is large: it is read into memory as a whole."""
    with path.open("rb") as file:
        file.seek(max(0, size - 66_000))
        tail = file.read()
        at = tail.rfind(_END)
        if at < 0 or len(tail) < at + 22:
            raise BadPayload(f"{path} is a zip archive cut short; fetch it again")
        length = struct.unpack_from("<I", tail, at + 12)[0]
        if length == 0xFFFFFFFF:  # a large archive tells it elsewhere
            at = tail.rfind(_END64)
            length = struct.unpack_from("<Q", tail, at + 40)[0] if 0 <= at <= len(tail) - 56 else 1 << 62
    if length > _DIRECTORY_BYTES:
        raise BadPayload(f"{path} lists too many files to be a venue's archive; nothing of it was imported")


def _only_member(path: Path, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    members = [info for info in archive.infolist() if not info.is_dir()]
    if len(members) != 1:
        raise BadPayload(f"{path} holds {len(members)} files instead of one: unpack it, and import what you want")
    info = members[0]
    if info.flag_bits & 1:
        raise BadPayload(f"{path} is encrypted: unpack it first")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise BadPayload(f"{path} is packed by a method venues do not use: unpack it first")
    packed = min(info.compress_size, path.stat().st_size)
    if info.file_size > TEXT_BYTES or (info.file_size > SMALL and info.file_size > RATIO * packed):
        raise BadPayload(
            f"{path} would expand from {packed:,} to {info.file_size:,} bytes, which no real file does: "
            "nothing of it was imported"
        )
    return info
