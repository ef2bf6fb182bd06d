"""Standard Webhooks signatures: what was signed passes, whatever was changed does not."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapewick.errors import ConfigError, Unauthorized
from tapewick.gateways._ingest_signature import WINDOW, Signatures, secret_of, signature

NOW = 1_800_000_000
OLD, NEW, FOREIGN = (f"whsec_{b64encode(sha256(name).digest()).decode()}" for name in (b"old", b"new", b"foreign"))
SECRETS = st.sampled_from([OLD, NEW])
IDS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)
KNOWN = Signatures([OLD, NEW])


def headers(secret: str, id: str, at: int, body: bytes) -> dict[str, str]:
    signed = signature(secret_of(secret), id, str(at), body)
    return {"webhook-id": id, "webhook-timestamp": str(at), "webhook-signature": signed}


@given(SECRETS, IDS, st.integers(NOW - WINDOW, NOW + WINDOW), st.binary(max_size=300))
def test_either_secret_signs(secret: str, id: str, at: int, body: bytes) -> None:
    assert KNOWN.check(headers(secret, id, at, body).get, body, NOW) == (id, "")


@given(SECRETS, IDS, st.binary(min_size=1, max_size=300), st.data())
def test_one_changed_bit_is_noticed(secret: str, id: str, body: bytes, data: st.DataObject) -> None:
    shown = headers(secret, id, NOW, body)
    at = data.draw(st.integers(0, len(body) * 8 - 1))
    changed = bytearray(body)
    changed[at // 8] ^= 1 << at % 8
    with pytest.raises(Unauthorized):
        KNOWN.check(shown.get, bytes(changed), NOW)
    with pytest.raises(Unauthorized):
        KNOWN.check({**shown, "webhook-id": id + "x"}.get, body, NOW)
    with pytest.raises(Unauthorized):
        KNOWN.check({**shown, "webhook-timestamp": str(NOW + 1)}.get, body, NOW)


@given(IDS, st.integers(WINDOW + 1, 10**8), st.sampled_from([-1, 1]))
def test_a_message_out_of_its_time_is_refused(id: str, away: int, sign: int) -> None:
    at = NOW + sign * away
    with pytest.raises(Unauthorized, match="away"):
        KNOWN.check(headers(OLD, id, at, b"{}").get, b"{}", NOW)


def test_one_good_signature_of_several_is_enough() -> None:
    good, bad = headers(NEW, "m1", NOW, b"{}"), headers(FOREIGN, "m1", NOW, b"{}")
    both = f"v1a,AAAA {bad['webhook-signature']} {good['webhook-signature']}"
    assert KNOWN.check({**good, "webhook-signature": both}.get, b"{}", NOW) == ("m1", "")
    with pytest.raises(Unauthorized):
        KNOWN.check(bad.get, b"{}", NOW)
    with pytest.raises(Unauthorized, match="ingest.secrets"):
        Signatures().check(good.get, b"{}", NOW)


def test_a_retired_secret_is_worth_nothing() -> None:
    with pytest.raises(Unauthorized):
        Signatures([NEW]).check(headers(OLD, "m1", NOW, b"{}").get, b"{}", NOW)


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
@pytest.mark.parametrize("value", ["", None, "\x00", "é" * 9, "-5", "1e9", "9" * 40, "v1", "v1,", ","])
def test_malformed_headers_are_refused(name: str, value: str | None) -> None:
    shown: dict[str, str | None] = {**headers(OLD, "m1", NOW, b"{}"), name: value}
    with pytest.raises(Unauthorized):
        KNOWN.check(shown.get, b"{}", NOW)


@pytest.mark.parametrize("text", ["", "whsec_", "whsec_AAAA", "whsec_not base64", OLD.removeprefix("whsec_")])
def test_a_bad_secret_is_refused_without_being_printed(text: str) -> None:
    with pytest.raises(ConfigError, match="ingest.secrets") as error:
        Signatures([OLD, text])
    assert len(text) < 8 or text not in str(error.value)


def test_the_published_example_of_the_specification() -> None:
    """id, time, body and secret of the specification's own libraries' tests."""
    secret = secret_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    made = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}')
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
