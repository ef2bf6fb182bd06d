import { describe, expect, it } from "vitest";
import { decimalOf, mantissaOf, scaleOf } from "../exact";
import { groupedBy, ladderOf, priceScaleOf, stepsOf } from "../ladder";
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

describe("grouped prices", () => {
  const asks: [string, string][] = [["100.01", "0.1"], ["100.1", "0.2"], ["100.11", "0.3"], ["101", "1"]];
  const bids: [string, string][] = [["100", "0.1"], ["99.99", "0.2"], ["99.9", "0.7"], ["98.5", "1"]];

  it("adds up exactly, asks to the price above and bids to the one below", () => {
    const { asks: up, bids: down, spread, mid } = ladderOf(book(asks, bids), 10, "0.1");
    expect(up.map(({ price, size }) => [price, size])).toEqual([["100.1", "0.3"], ["100.2", "0.3"], ["101.0", "1.0"]]);
    expect(down.map(({ price, size }) => [price, size])).toEqual([["100.0", "0.1"], ["99.9", "0.9"], ["98.5", "1.0"]]);
    expect(up.map(({ total }) => total)).toEqual(["0.3", "0.6", "1.6"]);
    expect([spread, mid]).toEqual(["0.01", "100.005"]);
  });

  it("groups by whole numbers and by more digits than a float has", () => {
    expect(ladderOf(book(asks, bids), 10, "10").asks).toMatchObject([{ price: "110", size: "1.6" }]);
    const fine: [string, string][] = [["123456789012345678901.00000012", "1"], ["123456789012345678901.00000019", "2"]];
    expect(groupedBy(fine, "0.0000001", true, true)).toEqual([["123456789012345678901.0000002", "3"]]);
    expect(groupedBy(fine, "0.0000001", false, true)).toEqual([["123456789012345678901.0000001", "3"]]);
  });

  it("leaves out a last group of which only a part may be known", () => {
    expect(groupedBy(asks, "0.1", true, false).map(([price]) => price)).toEqual(["100.1", "100.2"]);
    expect(ladderOf(book(asks, bids), 10, "0.1", 4).asks).toHaveLength(2);
    expect(ladderOf(book(asks, bids), 10, "0.1", 5).asks).toHaveLength(3);
    expect(ladderOf(book(asks, bids), 10, "100", 4).asks).toHaveLength(1);
  });

  it("keeps every size, whatever the step", () => {
    for (const step of ["0.01", "0.1", "1", "10", "100"]) {
      for (const [side, up] of [[asks, true], [bids, false]] as const) {
        const sum = groupedBy(side, step, up, true).reduce((all, [, size]) => all + mantissaOf(size, 1), 0n);
        expect(sum).toBe(side.reduce((all, [, size]) => all + mantissaOf(size, 1), 0n));
      }
    }
  });

  it("offers steps from the finest, none so wide that nothing is left", () => {
    const wide = book(asks, bids);
    expect(stepsOf(wide, priceScaleOf(wide))).toEqual(["0.01", "0.1", "1"]);
    expect(stepsOf(book([["61685.99", "1"]], []), 2)).toEqual(["0.01", "0.1", "1", "10", "100"]);
    expect(stepsOf(book([["0.00001234", "1"]], []), 8)).toEqual(["0.00000001", "0.0000001"]);
    expect(stepsOf(book([], []), 0)).toEqual(["1"]);
  });
});
