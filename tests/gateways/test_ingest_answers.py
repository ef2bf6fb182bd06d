"""Idempotency keys: the same request gets the same answer, another request under the same key none."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapewick.errors import StoreError, Unprocessable
from tapewick.gateways._ingest_answers import Answers

KEEP = 86_400
STEP = st.tuples(
    st.sampled_from(["a", "b"]),  # owner
    st.sampled_from(["k", "l"]),  # key
    st.sampled_from([b"1", b"2"]),  # digest of the body
    st.sampled_from([0, 10, KEEP]),  # seconds that pass before
    st.sampled_from(["end", "crash", "forget", "reopen"]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(STEP, max_size=25))
def test_against_a_model(steps: list[tuple[str, str, bytes, int, str]]) -> None:
    """The model: per (owner, key) the digest, the time, and the answer once there is one."""
    model: dict[tuple[str, str], tuple[bytes, int, bytes | None]] = {}
    now = 1000
    with TemporaryDirectory() as folder:
        answers = Answers(folder, KEEP)
        for number, (owner, key, digest, passed, ending) in enumerate(steps):
            now += passed
            known = model.get((owner, key))
            if known is not None and known[1] <= now - KEEP:
                known = None
            if known is not None and known[0] != digest:
                with pytest.raises(Unprocessable):
                    answers.begin(owner, key, digest, now)
                continue
            assert answers.begin(owner, key, digest, now) == (known[2] if known else None)
            if known is None:
                model[owner, key] = (digest, now, None)
            if known is None or known[2] is None:
                if ending == "end":
                    text = b"answer %d" % number
                    answers.end(owner, key, text)
                    model[owner, key] = (digest, model[owner, key][1], text)
                elif ending == "forget":
                    answers.forget(owner, key)
                    del model[owner, key]
            if ending == "reopen":
                answers.close()
        answers.close()


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "ingest.sqlite").mkdir()
    with pytest.raises(StoreError, match="ingest.sqlite"):
        Answers(tmp_path, KEEP).begin("a", "k", b"1", 1)
