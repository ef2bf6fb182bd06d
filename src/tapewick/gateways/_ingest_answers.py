"""Answers to requests that carried an idempotency key, kept on disk so that a repeated request gets the same one.

They are a convenience to the sender, never the truth: without them a repeated trade is found on the tape and called
a duplicate.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from tapewick.errors import StoreError, Unprocessable

__all__ = ["Answers"]

NAME = "ingest.sqlite"
SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    owner TEXT NOT NULL, key TEXT NOT NULL, digest BLOB NOT NULL, at INTEGER NOT NULL, answer BLOB,
    PRIMARY KEY (owner, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS answers_at ON answers (at);
"""
SWEEP = 3600  # seconds between two removals of what is too old


class Answers:
    """The answers of one data folder, for ``keep`` seconds. Methods block: call them from one thread at a time."""

    def __init__(self, folder: str | Path, keep: float) -> None:
        self._path, self._keep, self._swept = Path(folder) / NAME, keep, 0.0
        self._connection: sqlite3.Connection | None = None

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=5)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")  # losing the last ones is no loss of trades
            connection.executescript(SCHEMA)
            self._connection = connection
        return self._connection

    def begin(self, owner: str, key: str, digest: bytes, now: float) -> bytes | None:
        """What was answered to this request before; None for a new one, which is noted.

        Raises ``Unprocessable`` where the same key came with another body, ``StoreError`` when the disk fails.
        """
        try:
            connection = self._open()
            if now - self._swept > SWEEP:
                connection.execute("DELETE FROM answers WHERE at <= ?", (int(now - self._keep),))
                self._swept = now
            row = connection.execute(
                "SELECT digest, answer FROM answers WHERE owner = ? AND key = ? AND at > ?",
                (owner, key, int(now - self._keep)),
            ).fetchone()
            if row is None:
                connection.execute(
                    "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, NULL)", (owner, key, digest, int(now))
                )
                return None
        except sqlite3.Error as error:
            raise StoreError(f"the answers in {self._path} cannot be read: {error}") from error
        if row[0] != digest:
            raise Unprocessable(
                "this idempotency key came with another body before: use a new key for a new request",
                field="idempotency-key",
            )
        answer: bytes | None = row[1]
        return answer

    def end(self, owner: str, key: str, answer: bytes) -> None:
        """Keep the answer to a request that ``begin`` noted. Raises ``StoreError``."""
        try:
            self._open().execute("UPDATE answers SET answer = ? WHERE owner = ? AND key = ?", (answer, owner, key))
        except sqlite3.Error as error:
            raise StoreError(f"the answers in {self._path} cannot be written: {error}") from error

    def forget(self, owner: str, key: str) -> None:
        """Let the key be used for another request: this one was wrong. Raises ``StoreError``."""
        try:
            self._open().execute("DELETE FROM answers WHERE owner = ? AND key = ?", (owner, key))
        except sqlite3.Error as error:
            raise StoreError(f"the answers in {self._path} cannot be written: {error}") from error

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
