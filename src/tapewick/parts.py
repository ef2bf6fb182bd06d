"""Real parts that tests and ``doctor`` look for: ``TAPEWICK_TEST_<PART>``, then PATH, then where Debian puts them."""

from __future__ import annotations

import os
import shutil
from typing import NamedTuple

__all__ = ["PARTS", "Part", "find"]


class Part(NamedTuple):
    """An optional program. ``debian``: its usual place; ``package``: what to install for it."""

    name: str
    program: str
    debian: str
    package: str
    purpose: str

    @property
    def env(self) -> str:
        """The variable that names another binary."""
        return f"TAPEWICK_TEST_{self.name.upper()}"


PARTS = (
    Part("chromium", "chromium", "/usr/bin/chromium", "chromium fonts-dejavu-core", "browser tests"),
    Part("postgres", "postgres", "/usr/lib/postgresql/15/bin/postgres", "postgresql-15", "PostgreSQL tests"),
    Part("redis", "redis-server", "/usr/bin/redis-server", "redis-server", "Redis tests"),
    Part("nats", "nats-server", "/usr/sbin/nats-server", "nats-server", "NATS tests"),
    Part("nginx", "nginx", "/usr/sbin/nginx", "nginx", "tests behind nginx"),
    Part("java", "java", "/usr/bin/java", "openjdk-17-jre-headless", "Kafka tests"),
    Part("maven", "mvn", "/usr/bin/mvn", "maven", "Kafka tests"),
)


def find(part: Part) -> str | None:
    """Path of the part's binary, None where there is none."""
    named = os.environ.get(part.env)
    if named:
        return named if os.access(named, os.X_OK) else None
    return shutil.which(part.program) or (part.debian if os.access(part.debian, os.X_OK) else None)
