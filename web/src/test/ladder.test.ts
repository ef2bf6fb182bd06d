import { describe, expect, it } from "vitest";
import { decimalOf, mantissaOf, scaleOf } from "../exact";
import { ladderOf } from "../ladder";
import type { Book } from "../model";

function book(asks: [string, string][], bids: [string, string][]): Book {
  return { instrument: "sim:AB", state: "live", ts_event: 1, asks, bids };
}

describe("exact decimals", () => {
  it.each(["0", "12", "0.5", "0.00000001", "123456789012345678901.25", "-3.50"])("keeps %s digit for digit", (text) => {
    expect(decimalOf(mantissaOf(text, scaleOf(text)), scaleOf(text))).toBe(text);
  });

  it("adds what floats would not", () => {
    expect(0.1 + 0.2).not.toBe(0.3);
    expect(decimalOf(mantissaOf("0.1", 1) + mantissaOf("0.2", 1), 1)).toBe("0.3");
  });
});

describe("the ladder", () => {
  it("adds sizes up from the best level, exactly", () => {
    const { asks, bids } = ladderOf(book([["10.1", "0.1"], ["10.2", "0.2"]], [["10", "0.3"]]), 10);
    expect(asks.map(({ total }) => total)).toEqual(["0.1", "0.3"]);
    expect(asks.map(({ price }) => price)).toEqual(["10.1", "10.2"]);
    expect(bids).toEqual([{ price: "10.0", size: "0.3", total: "0.3", depth: 1 }]);
    expect(asks[0]?.depth).toBeCloseTo(1 / 3);
  });

  it("has a spread and a middle with every digit", () => {
    const { spread, mid, points } = ladderOf(book([["0.00000004", "1"]], [["0.00000001", "1"]]), 5);
    expect([spread, mid]).toEqual(["0.00000003", "0.000000025"]);
    expect(points).toBeCloseTo(12_000);
    expect(ladderOf(book([["3", "1"]], [["1", "1"]]), 5).mid).toBe("2");
  });

  it("takes no more levels than asked for, and says nothing of an empty side", () => {
    const many = Array.from({ length: 30 }, (_, at): [string, string] => [String(100 + at), "1"]);
    const { asks, bids, spread, mid, points } = ladderOf(book(many, []), 10);
    expect(asks).toHaveLength(10);
    expect([bids, spread, mid, points]).toEqual([[], null, null, null]);
  });
});
