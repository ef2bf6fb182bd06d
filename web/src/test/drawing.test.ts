import { describe, expect, it } from "vitest";
import { candleTime, changeText, decimalsOf, grouped, tickLabel } from "../format";
import type { Palette } from "../palette";
import { candlePoint, volumePoint } from "../points";
import { searchInstruments } from "../search";
import { holeBetween, slotsOf, WIDEST_HOLE } from "../slots";
import { candle, instrument } from "./rows";

const MINUTE = 60_000;
const palette = { up: "U", down: "D", upFaint: "u", downFaint: "d", upSoft: "us", downSoft: "ds" } as Palette;

describe("places on the time axis", () => {
  it("leaves an empty place for each missing bucket", () => {
    const slots = slotsOf([candle(0), candle(3 * MINUTE)], "1m");
    expect(slots.map(({ time, row }) => [time / MINUTE, row !== null])).toEqual([
      [0, true],
      [1, false],
      [2, false],
      [3, true],
    ]);
  });

  it("follows the calendar in months", () => {
    const slots = slotsOf([candle(Date.UTC(2024, 0, 1)), candle(Date.UTC(2024, 3, 1))], "1M");
    expect(slots.map(({ time }) => new Date(time).getUTCMonth())).toEqual([0, 1, 2, 3]);
  });

  it("draws a long hole with a bounded width", () => {
    expect(holeBetween(0, 1e6 * MINUTE, "1m")).toHaveLength(WIDEST_HOLE);
  });
});

describe("points", () => {
  it("draws open candles hollow, incomplete ones faint, the others solid", () => {
    const row = candle(0);
    expect(candlePoint({ time: 0, row }, false, palette)).toMatchObject({ color: "U", borderColor: "U", close: 1.75 });
    const open = { ...row, state: "open" as const };
    expect(candlePoint({ time: 0, row: open }, false, palette)).toMatchObject({ color: "u", borderColor: "U" });
    const lacking = { ...row, complete: false, open: "2" };
    expect(candlePoint({ time: 0, row: lacking }, false, palette)).toMatchObject({ color: "d", borderColor: "d" });
  });

  it("leaves the place of a bucket without prices empty", () => {
    const row = candle(MINUTE, { open: null, high: null, low: null, close: null, volume: "0" });
    expect(candlePoint({ time: MINUTE, row }, false, palette)).toEqual({ time: 60 });
    expect(volumePoint({ time: MINUTE, row }, palette)).toEqual({ time: 60 });
  });
});

describe("text", () => {
  it("groups digits without changing one", () => {
    expect(grouped("1234567.0012300")).toBe("1,234,567.0012300");
    expect(grouped("-1234")).toBe("-1,234");
    expect(grouped("999")).toBe("999");
  });

  it("prints arrow and sign of a change", () => {
    expect([changeText(1.234), changeText(-0.4), changeText(-0.001)]).toEqual(["▲ +1.23%", "▼ −0.40%", "■ 0.00%"]);
  });

  it("finds the decimals that prices need", () => {
    expect(decimalsOf(["1.50", "2.125", null, "3"])).toBe(3);
    expect(decimalsOf(["100.00"])).toBe(0);
  });

  it("prints days in UTC whatever the zone, and clock times in the zone", () => {
    const midnight = Date.UTC(2024, 7, 9);
    expect(candleTime(midnight, "1d", "local")).toBe("9 Aug 2024");
    expect(candleTime(midnight, "1h", "utc")).toBe("9 Aug 2024 00:00");
    expect(tickLabel(midnight, "day", "1h", "utc")).toBe("9 Aug");
    expect(tickLabel(midnight + 90 * MINUTE, "time", "1m", "utc")).toBe("01:30");
  });
});

it("finds instruments by letters in order, best first", () => {
  const list = ["sim:BTCUSDT", "binance:ETHBTC", "chainlink:ETH/USD"].map((id) => instrument(id));
  expect(searchInstruments("btc", list)[0]?.id).toBe("sim:BTCUSDT");
  expect(searchInstruments("eth/usd", list).map(({ id }) => id)).toEqual(["chainlink:ETH/USD"]);
  expect(searchInstruments("zzz", list)).toEqual([]);
  expect(searchInstruments("", list)).toHaveLength(3);
});
