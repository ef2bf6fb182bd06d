"""The holes of one tape and what is being done about them: open, being repaired, closed or given up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from msgspec.structs import replace

from tapewick.model import NO_END, NO_TIME, Gap, Wanted

__all__ = ["Gaps"]

Key = tuple[int, int]
"""The ids on either side of a hole."""


class Gaps:
    """The gaps of ``instrument``, from those a store ``known`` on.

    A restart gives every gap new attempts. Ids that were asked for below or above all that is covered are a
    gap too: its outer side is the id before, or after, what was asked for.
    """

    def __init__(self, instrument: str, known: Iterable[Gap], ranges: Sequence[Sequence[int]], attempts: int) -> None:
        self._instrument, self._most = instrument, attempts
        self._open = {(gap.left_id, gap.right_id): gap for gap in known if gap.state != "closed"}
        self._changed: dict[Key, Gap] = {}
        self._reports: list[Gap] = []
        self._low: int | None = None
        self._high: int | None = None
        for left, right in self._open:
            if not ranges or right == ranges[0][0]:
                self._low = left + 1
            if not ranges or left == ranges[-1][1]:
                self._high = right - 1
        self.retry()

    def __len__(self) -> int:
        return len(self._open)

    @property
    def pending(self) -> bool:
        """Whether ``take`` has something to tell."""
        return bool(self._changed or self._reports)

    @property
    def reaching(self) -> bool:
        """Whether ids beyond the ledger's ends are wanted: then every change of the ledger matters, not only holes."""
        return self._low is not None or self._high is not None

    @property
    def states(self) -> Counter[str]:
        """How many gaps are in each state."""
        return Counter(gap.state for gap in self._open.values())

    def wanted(self) -> Wanted | None:
        """The id ranges to ask the venue for, oldest first; None when nothing is missing that may be had."""
        holes = sorted((gap.left_id, gap) for gap in self._open.values() if gap.state != "unrepairable")
        if not holes:
            return None
        return Wanted(
            instrument=self._instrument,
            ranges=tuple((gap.left_id + 1, gap.right_id - 1) for _, gap in holes),
            since=tuple(gap.left_ts for _, gap in holes),
        )

    def retry(self, *, given_up: bool = False) -> None:
        """Ask with new attempts for everything, or only for what had been given up."""
        for gap in list(self._open.values()):
            if gap.state == "unrepairable" or not given_up:
                self._put(replace(gap, state="open", attempts=0))

    def ask(self, low: int, high: int, since: int, ranges: Sequence[Sequence[int]]) -> None:
        """Want the ids [``low``, ``high``], of which the first trade is not before ``since`` (ns).

        Holes are wanted anyway: this extends what the tape is to cover, and takes back that a hole was given up.
        """
        if not ranges or low < ranges[0][0]:
            self._low = low if self._low is None else min(self._low, low)
        if not ranges or high > ranges[-1][1]:
            self._high = high if self._high is None else max(self._high, high)
        self.update(ranges, "backfill", since)
        for gap in list(self._open.values()):
            if gap.state == "unrepairable" and gap.left_id < high and low < gap.right_id:
                self._put(replace(gap, state="open", attempts=0))

    def report(self, gap: Gap) -> None:
        """What the repair lane says of a range; it counts once everything before it has been ingested."""
        self._reports.append(gap)

    def update(self, ranges: Sequence[Sequence[int]], cause: str, since: int = NO_TIME) -> None:
        """Compare the ledger's holes with the known gaps; new ones have ``cause`` unless they are parts of one."""
        if ranges and self._low is not None and self._low >= ranges[0][0]:
            self._low = None
        if ranges and self._high is not None and self._high <= ranges[-1][1]:
            self._high = None
        holes = {(left, right): times for left, right, times in self._holes(ranges, since)}
        closed = [gap for key, gap in self._open.items() if key not in holes]
        for gap in closed:
            self._put(replace(gap, state="closed"))
        for (left, right), (left_ts, right_ts) in holes.items():
            if (left, right) in self._open:
                continue
            parent = next((gap for gap in closed if gap.left_id <= left and right <= gap.right_id), None)
            self._put(
                Gap(
                    instrument=self._instrument,
                    left_id=left,
                    right_id=right,
                    left_ts=left_ts,
                    right_ts=right_ts,
                    reason=parent.reason if parent else cause,
                    state="repairing" if parent and parent.state == "repairing" else "open",
                )
            )

    def take(self) -> tuple[Gap, ...]:
        """The gaps that opened, closed or changed since the last ``take``, the lane's reports included."""
        reports, self._reports = self._reports, []
        for report in reports:
            self._apply(report)
        changed, self._changed = tuple(self._changed.values()), {}
        return changed

    def _apply(self, report: Gap) -> None:
        for gap in list(self._open.values()):
            if max(gap.left_id, report.left_id) + 1 >= min(gap.right_id, report.right_id):
                continue
            if gap.state == "unrepairable":  # a last attempt may still have been on its way
                continue
            if report.state == "repairing":
                if gap.state == "open":
                    self._put(replace(gap, state="repairing"))
                continue
            attempts = gap.attempts + 1
            self._put(replace(gap, state="unrepairable" if attempts >= self._most else "open", attempts=attempts))

    def _put(self, gap: Gap) -> None:
        key = gap.left_id, gap.right_id
        if self._open.get(key) == gap:
            return
        if gap.state == "closed":
            del self._open[key]
        else:
            self._open[key] = gap
        self._changed[key] = gap

    def _holes(self, ranges: Sequence[Sequence[int]], since: int) -> Iterator[tuple[int, int, Key]]:
        """Each hole as its sides and their times."""
        if not ranges:
            if self._low is not None and self._high is not None:
                yield self._low - 1, self._high + 1, (since, NO_END)
            return
        first, last = ranges[0], ranges[-1]
        if self._low is not None:
            known = self._open.get((self._low - 1, first[0]))
            yield self._low - 1, first[0], (known.left_ts if known else since, first[2])
        for left, right in zip(ranges, ranges[1:], strict=False):
            yield left[1], right[0], (left[3], right[2])
        if self._high is not None:
            yield last[1], self._high + 1, (last[3], NO_END)
