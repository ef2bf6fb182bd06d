import { expect, it } from "vitest";
import { formatAddress, parseAddress } from "../url";

const none = { theme: null, tz: null };

it.each([
  ["#binance:BTCUSDT/1h?theme=dark", { instrument: "binance:BTCUSDT", tf: "1h", theme: "dark", tz: null }],
  ["#chainlink:ETH/USD/1M", { instrument: "chainlink:ETH/USD", tf: "1M", ...none }],
  ["#sim:BTCUSDT/1m?theme=light&tz=local", { instrument: "sim:BTCUSDT", tf: "1m", theme: "light", tz: "local" }],
  ["#hook:A%3FB/5m", { instrument: "hook:A?B", tf: "5m", ...none }],
  ["", { instrument: null, tf: null, ...none }],
])("reads %s and writes it back", (hash, address) => {
  expect(parseAddress(hash)).toEqual(address);
  expect(formatAddress(parseAddress(hash))).toBe(hash);
});

it("takes an id without a timeframe, also one that contains a slash", () => {
  expect(parseAddress("#chainlink:ETH/USD")).toEqual({ instrument: "chainlink:ETH/USD", tf: null, ...none });
});

it("ignores values it does not know", () => {
  expect(parseAddress("#sim:AB/1m?theme=pink&tz=mars")).toEqual({ instrument: "sim:AB", tf: "1m", ...none });
});

it("survives a broken escape", () => {
  expect(parseAddress("#hook:100%/1m").instrument).toBe("hook:100%");
});
