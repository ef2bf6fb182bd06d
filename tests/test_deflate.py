"""permessage-deflate: what is negotiated, what is packed, and that a bomb stays small."""

from __future__ import annotations

import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapewick.deflate import LARGE, SMALL, TooBig, accepted, pack, unpack

PLAIN = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
WINDOW = f"{PLAIN}; server_max_window_bits=11"


@pytest.mark.parametrize(
    ("offers", "answer"),
    [
        ("", None),
        ("x-webkit-deflate-frame", None),
        ("permessage-deflate", PLAIN),
        ("permessage-deflate; client_max_window_bits", PLAIN),
        ("permessage-deflate;client_max_window_bits=15;client_no_context_takeover", PLAIN),
        ("permessage-deflate; server_no_context_takeover", PLAIN),
        ("permessage-deflate; server_max_window_bits=15", WINDOW),
        ('permessage-deflate; server_max_window_bits="12"', WINDOW),
        ("permessage-deflate; server_max_window_bits=11", WINDOW),
        ("permessage-deflate; server_max_window_bits=10", None),
        ("permessage-deflate; server_max_window_bits=10, permessage-deflate", PLAIN),
        ("other, permessage-deflate; client_max_window_bits", PLAIN),
        ("permessage-deflate; server_max_window_bits", None),
        ("permessage-deflate; server_max_window_bits=16", None),
        ("permessage-deflate; client_max_window_bits=7", None),
        ("permessage-deflate; client_max_window_bits=", None),
        ("permessage-deflate; client_max_window_bits=٩", None),
        ("permessage-deflate; server_no_context_takeover=1", None),
        ("permessage-deflate; server_no_context_takeover; server_no_context_takeover", None),
        ("permessage-deflate; unknown", None),
        ("permessage-deflate;", None),
    ],
)
def test_what_is_answered_to_an_offer(offers: str, answer: str | None) -> None:
    assert accepted(offers) == answer


@given(st.text(alphabet='permsag-dflt;,="1_ \x00', max_size=80))
def test_any_offer_is_answered_or_not(offers: str) -> None:
    assert accepted(offers) in (None, PLAIN, WINDOW)


@given(st.binary(min_size=1, max_size=300), st.integers(1, 40))
def test_what_is_packed_comes_out_again(part: bytes, times: int) -> None:
    data = part * times
    packed = pack(data)
    if packed is None:
        return
    assert SMALL <= len(data) and len(packed) < len(data)
    assert unpack(packed, len(data)) == data
    other = zlib.decompressobj(-11)  # the window that was agreed on suffices
    assert other.decompress(packed + b"\x00\x00\xff\xff") == data
    with pytest.raises(TooBig):
        unpack(packed, len(data) - 1)


def test_what_does_not_pay_is_not_packed() -> None:
    assert pack(b"a" * (SMALL - 1)) is None and pack(b"a" * (LARGE + 1)) is None
    assert pack(b"a" * SMALL) is not None and pack(b"a" * LARGE) is not None
    assert pack(bytes(range(256))) is None


@given(st.binary(max_size=200))
def test_garbage_is_refused_or_small(data: bytes) -> None:
    try:
        assert len(unpack(data, 1000)) <= 1000
    except ValueError:
        pass


def test_a_bomb_makes_no_more_than_it_may() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(60)) + packer.flush(zlib.Z_SYNC_FLUSH)
    assert len(bomb) < 65_536
    tracemalloc.start()
    try:
        with pytest.raises(TooBig):
            unpack(bomb[:-4], 655_360)
        assert tracemalloc.get_traced_memory()[1] < 3 << 20
    finally:
        tracemalloc.stop()
