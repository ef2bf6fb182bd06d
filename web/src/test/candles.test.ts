import { describe, expect, it } from "vitest";
import { CandleTable, isIncomplete } from "../candles";
import { candle } from "./rows";

const MINUTE = 60_000;

function tableOf(...minutes: number[]): CandleTable {
  const table = new CandleTable();
  for (const minute of minutes) table.apply(candle(minute * MINUTE));
  return table;
}

describe("versions of one candle", () => {
  it("replaces an open row at equal rev by whatever comes last", () => {
    const table = new CandleTable();
    table.apply(candle(0, { state: "open", close: "1.1" }));
    expect(table.apply(candle(0, { state: "open", close: "1.2" }))).toBe("replaced");
    expect(table.apply(candle(0, { state: "closed", close: "1.3" }))).toBe("replaced");
    expect(table.last?.close).toBe("1.3");
  });

  it("takes a closed row at equal rev for a duplicate, and never falls back to open", () => {
    const table = new CandleTable();
    table.apply(candle(0, { state: "closed", close: "1.3" }));
    expect(table.apply(candle(0, { state: "closed", close: "9" }))).toBe("none");
    expect(table.apply(candle(0, { state: "open", close: "9" }))).toBe("none");
    expect(table.last?.close).toBe("1.3");
  });

  it("lets the higher rev win, in either order of arrival", () => {
    const table = new CandleTable();
    table.apply(candle(0, { rev: 2, close: "2" }));
    expect(table.apply(candle(0, { rev: 1, close: "1" }))).toBe("none");
    expect(table.apply(candle(0, { rev: 3, close: "3", state: "closed" }))).toBe("replaced");
    expect(table.last?.close).toBe("3");
  });
});

describe("order", () => {
  it("appends, inserts and finds by open time", () => {
    const table = tableOf(1, 2, 5);
    expect(table.apply(candle(3 * MINUTE))).toBe("inserted");
    expect(table.apply(candle(0))).toBe("inserted");
    expect(table.apply(candle(9 * MINUTE))).toBe("appended");
    expect(table.rows.map((row) => row.open_time / MINUTE)).toEqual([0, 1, 2, 3, 5, 9]);
    expect(table.find(5 * MINUTE)?.open_time).toBe(5 * MINUTE);
    expect(table.find(4 * MINUTE)).toBeUndefined();
  });
});

describe("pages of history", () => {
  it("adds older rows and says how many were new", () => {
    const table = tableOf(5, 6);
    expect(table.merge([candle(3 * MINUTE), candle(4 * MINUTE), candle(5 * MINUTE)])).toBe(2);
    expect(table.merge([candle(3 * MINUTE)])).toBe(0);
    expect(table.rows.map((row) => row.open_time / MINUTE)).toEqual([3, 4, 5, 6]);
  });

  it("does not let an open row of a page overwrite a newer one of the stream", () => {
    const table = new CandleTable();
    table.apply(candle(0, { state: "open", close: "2" }));
    table.merge([candle(0, { state: "open", close: "1" })]);
    expect(table.last?.close).toBe("2");
    table.merge([candle(0, { state: "closed", close: "3" })]);
    expect(table.last?.close).toBe("3");
  });
});

describe("completeness", () => {
  it("marks what is known to lack trades, not what is open, unprovable or too new to tell", () => {
    expect(isIncomplete(candle(0, { complete: false, state: "closed" }), false)).toBe(true);
    expect(isIncomplete(candle(0, { complete: false, state: "closed" }), true)).toBe(false);
    expect(isIncomplete(candle(0, { complete: false, state: "open" }), false)).toBe(false);
    expect(isIncomplete(candle(0, { complete: null, state: "closed" }), false)).toBe(false);
    expect(isIncomplete(candle(0, { complete: false, state: "closed", tf: "1s" }), false)).toBe(false);
  });

  it("calls the two newest candles, and those of the last seconds, settling", () => {
    const table = tableOf(1, 2, 3);
    expect([1, 2, 3].map((minute) => table.isSettling(minute * MINUTE))).toEqual([false, true, true]);
  });
});
