"""What is told of streams, gaps and books to whom."""

from __future__ import annotations

from tapewick.conditions import Condition, Conditions
from tapewick.model import Gap, Health


class Listener:
    def __init__(self, instrument: str = "") -> None:
        self.instrument = instrument
        self.rows: list[Condition] = []

    def changed(self, row: Condition) -> None:
        self.rows.append(row)


def gap(id: str, state: str = "open") -> Gap:
    return Gap(instrument=id, left_id=1, right_id=5, left_ts=0, right_ts=0, state=state)  # type: ignore[arg-type]


async def test_who_listens_to_all_hears_of_gaps_of_an_instrument_that_came_later() -> None:
    conditions, everything, other = Conditions(), Listener(), Listener("sim:OTHER")
    conditions.listen(everything)
    conditions.listen(other)
    conditions.hint("sim:NEW")
    assert await conditions.doubtful() == {"sim:NEW"}
    assert conditions.follows("sim:NEW")
    conditions.gaps("sim:NEW", [gap("sim:NEW")])
    conditions.gaps("sim:NEW", [gap("sim:NEW", "closed")])
    assert [row["kind"] for row in everything.rows] == ["gap_opened", "gap_closed"]
    assert other.rows == []


async def test_gaps_nobody_asks_for_are_not_read() -> None:
    conditions, own = Conditions(), Listener("sim:OWN")
    conditions.listen(own)
    assert not conditions.follows("sim:NEW")
    conditions.hint("sim:NEW")
    conditions.hint("sim:OWN")
    assert await conditions.doubtful() == {"sim:OWN"}
    conditions.leave(own)
    assert not conditions.follows("sim:OWN")


def word(state: str, detail: str, instrument: str = "", ts: int = 1) -> Health:
    return Health(source="sim", state=state, ts=ts * 1_000_000, detail=detail, instrument=instrument)  # type: ignore[arg-type]


async def test_no_stream_flows_while_its_source_is_down() -> None:
    conditions, own = Conditions(), Listener("sim:OWN")
    conditions.health(word("connected", "streams open"))
    conditions.health(word("connected", "trade: data flow", "sim:OWN", 2))
    conditions.health(word("stale", "trade: stale", "sim:OLD", 2))
    conditions.listen(own)
    conditions.health(word("disconnected", "gone", ts=3))
    assert [(row["instrument"], row["state"]) for row in own.rows] == [
        (None, "disconnected"),
        ("sim:OWN", "disconnected"),
    ]
    shown = {row["instrument"]: (row["state"], row["detail"], row["ts"]) for row in conditions.rows("")}
    assert shown["sim:OWN"] == ("disconnected", "gone", 3)
    assert shown["sim:OLD"] == ("stale", "trade: stale", 2)
    own.rows.clear()
    conditions.health(word("connected", "streams open", ts=4))
    assert [(row["instrument"], row["state"]) for row in own.rows] == [(None, "connected"), ("sim:OWN", "connected")]
    assert {row["state"] for row in conditions.rows("sim:OWN")} == {"connected"}


def said(collector: str, state: str, detail: str = "", instrument: str = "", ts: int = 1) -> Health:
    return Health(source="sim", state=state, ts=ts * 10**9, detail=detail, instrument=instrument, collector=collector)  # type: ignore[call-arg, arg-type]


async def test_of_redundant_collectors_the_best_off_counts_and_repetitions_are_no_news() -> None:
    conditions, listener = Conditions(), Listener()
    conditions.listen(listener)
    conditions.health(said("a", "connected", "a's"))
    for _ in range(3):
        conditions.health(said("b", "disconnected", "no route"))
        conditions.health(said("a", "connected", "a's"))
    assert [row["state"] for row in listener.rows] == ["connected"]
    conditions.health(said("a", "disconnected", "its collector was stopped", ts=2))
    assert [row["state"] for row in listener.rows] == ["connected", "disconnected"]
    conditions.health(said("b", "connected", "b's", ts=3))
    assert conditions.rows("")[0]["state"] == "connected"


async def test_a_collector_that_falls_silent_is_taken_for_gone() -> None:
    conditions, listener = Conditions(), Listener()
    conditions.listen(listener)
    conditions.health(word("stale", "said by nobody in particular", "sim:OLD"))
    for name in ("a", "b"):
        conditions.health(said(name, "connected"))
        conditions.health(said(name, "stale", instrument="sim:NEW"))
    for second in range(100):
        if second < 50:
            conditions.health(said("b", "connected"))
        conditions.check(second)
    rows = {(row["source"], row["instrument"]): row["state"] for row in conditions.rows("")}
    assert rows == {("sim", None): "disconnected", ("sim", "sim:OLD"): "stale"}
    assert [row["state"] for row in listener.rows if row["instrument"] is None] == ["connected", "disconnected"]
