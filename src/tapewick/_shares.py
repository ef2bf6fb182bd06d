"""How many of equal things each of several members should have, and which."""

from __future__ import annotations

from collections.abc import Set

__all__ = ["fair_share"]


def fair_share(count: int, members: int, rank: int, *, mine: Set[int], free: Set[int]) -> tuple[set[int], set[int]]:
    """What the member of ``rank`` (of ``members``, from 0) keeps of ``mine``, and what it takes of ``free``.

    Shares differ by one at most, and once members and shares stand nothing moves. First choice are the numbers that
    are ``rank`` modulo ``members``: members that begin together then ask for different ones.
    """
    quota = count // members + (rank < count % members)

    def liking(number: int) -> tuple[bool, int]:
        return number % members != rank, number

    keep = set(sorted(mine, key=liking)[:quota])
    return keep, set(sorted(free, key=liking)[: quota - len(keep)])
