import { expect, it } from "vitest";
import { Conditions } from "../conditions";

const GAP = { kind: "gap_opened", instrument: "a:B", left_id: 10, right_id: 20, state: "open" };

it("holds the newest word of each stream, and what is wrong", () => {
  const known = new Conditions();
  known.apply([
    { kind: "stream_health", source: "s", instrument: "a:B", state: "stale", detail: "quiet" },
    { kind: "stream_health", source: "s", instrument: null, state: "connected" },
  ]);
  expect(known.streams.map(({ instrument, state }) => [instrument, state])).toEqual([
    [null, "connected"],
    ["a:B", "stale"],
  ]);
  expect(known.trouble).toBe("s is stale: quiet");
  known.apply([{ kind: "stream_health", source: "s", instrument: "a:B", state: "connected" }]);
  expect(known.trouble).toBeUndefined();
});

it("holds open gaps, the newest first, until they are closed", () => {
  const known = new Conditions();
  known.apply([GAP, { ...GAP, left_id: 30, right_id: 40 }, { kind: "book_state", state: "live" }]);
  expect(known.gaps.map(({ left_id }) => left_id)).toEqual([30, 10]);
  known.apply([{ ...GAP, kind: "gap_closed" }]);
  expect(known.gaps.map(({ left_id }) => left_id)).toEqual([30]);
  expect(known.book?.state).toBe("live");
  known.clear();
  expect([known.gaps, known.streams, known.book]).toEqual([[], [], null]);
});
