"""Logs decoded: what contracts write comes back exactly, what does not fit is kept as it is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapewick.chain.decoding import EVENTS, Misfit, decoded, order_of, word_of
from tapewick.chain.keccak import checksum, keccak256
from tests.chain.encoding import CONTRACT, CREATED, USER, encoded, log_of, word
from tests.chain.orders_contract import built

LIMITS = {"uint256": 256, "address": 160, "uint8": 8, "bool": 1}
SIGNATURES = {
    "OrderCreated(uint256,address,address,address,uint256)",
    "OrderExecuted(uint256,address,uint256)",
    "OrderCancelled(uint256,address)",
    "OrderModified(uint256,uint256,uint256)",
    "OrderCreated(uint256,address,address,address,uint256,uint256,uint8)",
    "OrderExecuted(uint256,address,uint256,bool)",
    "OrderCancelled(uint256,address,uint256)",
    "OrderModified(uint256,uint256,uint256,uint256)",
}


def values_of(topic: str) -> st.SearchStrategy[dict[str, str]]:
    """Values an event of that kind may carry."""

    def value(type: str) -> st.SearchStrategy[str]:
        number = st.integers(0, 2 ** LIMITS[type] - 1)
        return number.map(lambda n: f"0x{n:040x}" if type == "address" else str(n))

    fields = (*EVENTS[topic].indexed, *EVENTS[topic].data)
    return st.fixed_dictionaries({name: value(type) for name, type in fields})


events = st.sampled_from(sorted(EVENTS)).flatmap(lambda topic: st.tuples(st.just(topic), values_of(topic)))
ids = st.integers(0, 2**256 - 1).map(str)


@given(events, ids)
def test_what_is_encoded_is_decoded(event: tuple[str, dict[str, str]], order_id: str) -> None:
    topic, values = event
    found = decoded(log_of(*encoded(topic, order_id, values)), ts=5)
    assert (found.kind, found.order_id, found.fields) == (EVENTS[topic].kind, order_id, values)
    assert (found.contract, found.block, found.ts) == (CONTRACT, 7, 5)


@given(events, ids, st.data())
def test_what_does_not_fit_is_kept_raw(event: tuple[str, dict[str, str]], order_id: str, data: Any) -> None:
    topics, body = encoded(event[0], order_id, event[1])
    how = data.draw(st.sampled_from(["fewer topics", "more topics", "longer", "shorter", "odd"]))
    if how == "fewer topics":
        topics = topics[:-1]
    elif how == "more topics":
        topics = (*topics, "0x" + word("1"))
    elif how == "shorter" and len(body) > 2:
        body = body[: data.draw(st.integers(2, len(body) - 1))]
    else:
        body += "0" if how == "odd" else "00" * data.draw(st.integers(1, 64))
    found = decoded(log_of(topics, body), ts=5)
    assert (found.kind, found.order_id) == ("raw", "")
    assert found.fields == {"topics": ",".join(topics), "data": body}


@pytest.mark.parametrize(("type", "bits"), [("address", 160), ("uint8", 8), ("bool", 1)])
def test_a_word_holds_no_more_than_its_type(type: str, bits: int) -> None:
    assert word_of(word(str(2**bits - 1)), type)
    with pytest.raises(Misfit, match=f"is no {type}"):
        word_of(word(str(2**bits)), type)


@pytest.mark.parametrize("text", ["", "0" * 63, "0" * 65, "_".join("0" * 32) + "0", " " + "0" * 63, "0x" + "0" * 62])
def test_a_word_is_64_digits(text: str) -> None:
    with pytest.raises(Misfit, match="no word"):
        word_of(text, "uint256")


def test_a_dirty_address_keeps_the_log() -> None:
    values = {"user": USER, "token_in": USER, "token_out": USER, "amount_in": "1"}
    topics, data = encoded(CREATED, "1", values)
    assert decoded(log_of(topics, "0x01" + data[4:]), 0).kind == "raw"
    assert decoded(log_of((topics[0], topics[1], "0x01" + topics[2][4:]), data), 0).kind == "raw"


def test_an_order_is_twelve_words() -> None:
    words = ["7", USER, USER, USER, "1", "2", "3", "1", "1", "0", "1700000000", "1"]
    told = order_of("0x" + "".join(map(word, words)))
    assert told["id"] == "7" and told["created_at"] == "1700000000" and told["self_executable"] == "1"
    with pytest.raises(Misfit, match="for 12 words"):
        order_of("0x")


def test_topics_are_the_hashes_of_what_our_contract_declares() -> None:
    declared = {
        f"{entry['name']}({','.join(each['type'] for each in entry['inputs'])})"
        for entry in built("Orders")["abi"]
        if entry["type"] == "event"
    }
    assert declared == SIGNATURES
    assert {"0x" + keccak256(signature.encode()).hex() for signature in SIGNATURES} == set(EVENTS)
    assert built("Orders")["selectors"]["getOrder(uint256)"] == keccak256(b"getOrder(uint256)")[:4].hex()


@pytest.mark.parametrize(
    "address",
    [
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
        "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
        "0xA51c1fc2f0D1a1b8494Ed1FE312d7C3a78Ed91C0",
    ],
)
def test_addresses_in_checksum_form(address: str) -> None:
    assert checksum(address.lower()) == checksum(address) == address
