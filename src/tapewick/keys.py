"""API keys, kept hashed: who may do what, for which instruments, until when.

A key is shown once, when it is made. What is kept is its public prefix and a SHA-256 of the whole; a key has 256
random bits, so its hash tells nothing. Of the embedded store they lie in a file of the data folder, of which a running
server sees every change at the next request; where gateways share a store, in a table of it (``stores``).
"""

from __future__ import annotations

import fcntl
import hmac
import json
import os
import re
import secrets
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from tapewick.errors import ConfigError

if TYPE_CHECKING:
    from tapewick.clock import Clock

__all__ = ["PREFIX", "SCOPES", "Grant", "Key", "KeyFile", "Keys", "digest_of", "made"]

SCOPES = ("read", "ingest", "admin")
SOURCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)
NAME = "keys.json"
MARK = "tw_"
PREFIX = len(MARK) + 8
"""Characters of a key that are public: its id."""


class Grant(NamedTuple):
    """What the bearer of a key, a token or a signature may do. ``id`` names it in logs and is no secret.
    ``source`` names who sends with it: names of trades are told apart by it; "" leaves them as they are."""

    id: str
    scopes: frozenset[str]
    instruments: str = "*"
    source: str = ""

    @property
    def sender(self) -> str:
        """Whose its requests are: all keys of one ``source`` are one sender's."""
        return self.source or self.id

    def covers(self, instrument: str) -> bool:
        """Whether it is for ``instrument``."""
        return fnmatchcase(instrument, self.instruments)


class Key(NamedTuple):
    """One key as it is kept. Times are seconds since 1970; ``expires`` 0: never; ``revoked`` 0: it is not.
    ``source``: see ``Grant``; "" of keys made before there were any."""

    id: str
    digest: str
    scopes: tuple[str, ...]
    instruments: str
    note: str
    created: int
    expires: int
    revoked: int
    source: str = ""

    def usable(self, now: float) -> bool:
        """Whether it lets its bearer in now."""
        return not self.revoked and (not self.expires or now < self.expires)

    @property
    def grant(self) -> Grant:
        """What its bearer may do."""
        return Grant(self.id, frozenset(self.scopes), self.instruments, self.source)


class Keys(Protocol):
    """What a server asks of its keys, wherever they are kept."""

    async def start(self) -> None:
        """Be able to answer; raises ``TapewickError`` where that fails."""
        ...

    async def stop(self) -> None: ...

    def grant(self, token: str) -> Grant | None:
        """What the bearer of ``token`` may do now; None for a stranger, an expired or a revoked key. Never waits."""
        ...


def digest_of(token: str) -> str:
    """What is kept of a key."""
    return sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def made(
    scopes: Collection[str],
    now: int,
    *,
    instruments: str = "*",
    days: float = 0,
    note: str = "",
    source: str | None = None,
) -> tuple[Key, str]:
    """A new key, and the secret text to give to its bearer.

    ``now``: seconds since 1970; ``days`` 0: it does not expire; ``source`` None: the key's own id. Raises
    ``ConfigError`` for a scope there is not, or a source that cannot be.
    """
    if unknown := [scope for scope in scopes if scope not in SCOPES]:
        raise ConfigError(f"unknown scope {unknown[0]!r}: choose from {', '.join(SCOPES)}")
    if not scopes:
        raise ConfigError(f"a key needs a scope: choose from {', '.join(SCOPES)}")
    if source and SOURCE.fullmatch(source) is None:
        raise ConfigError("a source is of letters, digits, '.', '_' and '-', at most 63: choose another --source")
    id = MARK + secrets.token_hex(4)
    token = f"{id}_{secrets.token_urlsafe(32)}"
    key = Key(
        id=id,
        digest=digest_of(token),
        scopes=tuple(scope for scope in SCOPES if scope in scopes),
        instruments=instruments,
        note=note,
        created=now,
        expires=now + max(1, int(days * 86_400)) if days else 0,
        revoked=0,
        source=id if source is None else source,
    )
    return key, token


class KeyFile:
    """The keys of one data folder; without ``clock`` the operating system's time counts, as help must not wait for
    asyncio. Raises ``ConfigError`` for a file that cannot be read."""

    def __init__(self, folder: str | Path, clock: Clock | None = None) -> None:
        self._path, self._clock = Path(folder) / NAME, clock
        self._seen: tuple[int, int, int] | None = None
        self._keys: tuple[Key, ...] = ()

    async def start(self) -> None:
        """Nothing: the file is read when it is asked."""

    async def stop(self) -> None:
        """Nothing."""

    @property
    def now(self) -> int:
        """Seconds since 1970."""
        return (time.time_ns() if self._clock is None else self._clock.now()) // 10**9

    def keys(self) -> tuple[Key, ...]:
        """All keys, revoked and expired ones included, oldest first."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            self._seen, self._keys = None, ()
            return ()
        if (state := (found.st_mtime_ns, found.st_size, found.st_ino)) != self._seen:
            self._keys, self._seen = self._read(), state
        return self._keys

    def grant(self, token: str) -> Grant | None:
        """What the bearer of ``token`` may do now; None for a stranger, an expired or a revoked key."""
        digest, now = digest_of(token), self.now
        # All are compared, each in constant time: how long it takes tells nothing.
        found = [key for key in self.keys() if hmac.compare_digest(digest, key.digest) and key.usable(now)]
        return found[0].grant if found else None

    def create(
        self,
        scopes: Collection[str],
        *,
        instruments: str = "*",
        days: float = 0,
        note: str = "",
        source: str | None = None,
    ) -> tuple[Key, str]:
        """A new key, and the secret text to give to its bearer: it can never be shown again. Options as of ``made``,
        errors too."""
        key, token = made(scopes, self.now, instruments=instruments, days=days, note=note, source=source)
        with self._locked():
            self._write((*self.keys(), key))
        return key, token

    def revoke(self, id: str) -> Key:
        """End a key now; the one it was. Raises ``ConfigError`` when there is none called ``id``."""
        with self._locked():
            keys = self.keys()
            for key in keys:
                if key.id == id:
                    ended = key._replace(revoked=key.revoked or self.now)
                    self._write(tuple(ended if one is key else one for one in keys))
                    return ended
        raise ConfigError(f"no key {id[:40]!r} in {self._path.parent}: tapewick keys list shows them")

    def _read(self) -> tuple[Key, ...]:
        try:
            rows = json.loads(self._path.read_text("utf-8"))["keys"]
            return tuple(Key(**{**row, "scopes": tuple(row["scopes"])}) for row in rows)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"cannot read {self._path}: {error}; restore it, or remove it and make new keys"
            ) from None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes from changing the file meanwhile."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _write(self, keys: tuple[Key, ...]) -> None:
        """Replace the file as a whole: a reader, or a crash, finds the old one or the new."""
        draft = self._path.with_suffix(".new")
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            json.dump({"keys": [key._asdict() for key in keys]}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, self._path)
        self._seen = None
