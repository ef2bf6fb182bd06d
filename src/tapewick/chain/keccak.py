"""Keccak-256 as chains use it (the padding before it became SHA-3), and addresses in checksum form.

Slow (about a millisecond per 136 bytes) and rarely asked: only for the names that are watched and printed.
"""

from __future__ import annotations

from functools import lru_cache

__all__ = ["checksum", "keccak256"]

RATE = 136  # bytes taken in between two permutations
_MASK = (1 << 64) - 1


def _rounds() -> list[int]:
    """The 24 round constants: bit 2**j - 1 of each is the next bit of an 8-bit shift register."""
    register, constants = 1, []
    for _ in range(24):
        constant = 0
        for j in range(7):
            constant |= (register & 1) << ((1 << j) - 1)
            register = (register << 1) ^ (0x171 if register & 0x80 else 0)
        constants.append(constant)
    return constants


def _moves() -> list[tuple[int, int]]:
    """For each lane in the order they are moved: where it goes to, and by how many bits it is turned."""
    x, y, moves = 1, 0, []
    for t in range(24):
        turn = (t + 1) * (t + 2) // 2 % 64
        x, y = y, (2 * x + 3 * y) % 5
        moves.append((x + 5 * y, turn))
    return moves


_ROUNDS, _MOVES = _rounds(), _moves()


def _permuted(lanes: list[int]) -> list[int]:
    for constant in _ROUNDS:
        column = [lanes[x] ^ lanes[x + 5] ^ lanes[x + 10] ^ lanes[x + 15] ^ lanes[x + 20] for x in range(5)]
        for x in range(5):
            parity = column[x - 1] ^ _turned(column[(x + 1) % 5], 1)
            for y in range(0, 25, 5):
                lanes[x + y] ^= parity
        carried = lanes[1]
        for place, turn in _MOVES:
            lanes[place], carried = _turned(carried, turn), lanes[place]
        for y in range(0, 25, 5):
            row = lanes[y : y + 5]
            for x in range(5):
                lanes[x + y] = row[x] ^ (~row[(x + 1) % 5] & row[(x + 2) % 5] & _MASK)
        lanes[0] ^= constant
    return lanes


def _turned(lane: int, bits: int) -> int:
    return ((lane << bits) | (lane >> (64 - bits))) & _MASK


def keccak256(data: bytes) -> bytes:
    """The 32 bytes of the hash of ``data``."""
    padded = bytearray(data)
    padded += bytes(RATE - len(data) % RATE)
    padded[len(data)] |= 0x01
    padded[-1] |= 0x80
    lanes = [0] * 25
    for start in range(0, len(padded), RATE):
        for i in range(RATE // 8):
            at = start + 8 * i
            lanes[i] ^= int.from_bytes(padded[at : at + 8], "little")
        lanes = _permuted(lanes)
    return b"".join(lane.to_bytes(8, "little") for lane in lanes[:4])


@lru_cache(4096)
def checksum(address: str) -> str:
    """``address`` (0x and 40 hex digits in any case) with the capitals that let a mistyped one be noticed."""
    digits = address[2:].lower()
    hashed = keccak256(digits.encode()).hex()
    return "0x" + "".join(c.upper() if int(hashed[i], 16) >= 8 else c for i, c in enumerate(digits))
