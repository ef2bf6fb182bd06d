"""The roles that move data: ``collect`` brings a source to the bus, ``engine`` brings the bus to the store."""

from __future__ import annotations

from tapewick.collecting import collect
from tapewick.engine_role import EngineRole

__all__ = ["EngineRole", "collect"]
