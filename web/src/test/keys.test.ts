import { describe, expect, it } from "vitest";
import { frameAfterPause, KEY_HELP, keyAction } from "../keys";
import { parseTimeframe } from "../timeframe";

const idle = { inField: false, dialogOpen: false, frame: "" };

function press(key: string, context = idle, modifiers = {}): ReturnType<typeof keyAction> {
  return keyAction({ key, ctrlKey: false, metaKey: false, altKey: false, ...modifiers }, context);
}

describe("keys", () => {
  it("acts on a command letter and opens search with any other", () => {
    expect(press("d")).toEqual({ do: "theme" });
    expect(press("e")).toEqual({ do: "search", text: "e" });
    expect(press("/")).toEqual({ do: "search", text: "" });
  });

  it("collects a timeframe from the first digit on, letters included", () => {
    expect(press("1")).toEqual({ do: "frame", text: "1" });
    expect(press("5", { ...idle, frame: "1" })).toEqual({ do: "frame", text: "15" });
    expect(press("d", { ...idle, frame: "1" })).toEqual({ do: "frame", text: "1d" });
    expect(press("Backspace", { ...idle, frame: "15" })).toEqual({ do: "frame", text: "1" });
    expect(press("Enter", { ...idle, frame: "15" })).toEqual({ do: "frame-enter", tf: "15m" });
    expect(press("Enter", { ...idle, frame: "7x" })).toEqual({ do: "frame-enter", tf: null });
    expect(press("Escape", { ...idle, frame: "15" })).toEqual({ do: "close" });
  });

  it("takes a single digit left alone as a place in the bar", () => {
    expect([frameAfterPause("1"), frameAfterPause("7"), frameAfterPause("9")]).toEqual(["1m", "1h", "3h"]);
    expect([frameAfterPause("15"), frameAfterPause("0"), frameAfterPause("")]).toEqual([null, null, null]);
  });

  it("leaves fields, dialogs and shortcuts of the browser alone", () => {
    expect(press("d", { ...idle, inField: true })).toBeNull();
    expect(press("1", { ...idle, dialogOpen: true })).toBeNull();
    expect(press("Escape", { ...idle, dialogOpen: true })).toEqual({ do: "close" });
    expect(press("d", idle, { ctrlKey: true })).toBeNull();
    expect(press("Enter")).toBeNull();
    expect(press("Tab")).toBeNull();
  });

  it("explains each key once", () => {
    const keys = KEY_HELP.map(([key]) => key);
    expect(new Set(keys).size).toBe(keys.length);
  });
});

it.each([
  ["15", "15m"],
  ["60", "1h"],
  ["240", "4h"],
  ["1", "1m"],
  ["4h", "4h"],
  ["4H", "4h"],
  ["D", "1d"],
  ["1d", "1d"],
  ["1m", "1m"],
  ["1M", "1M"],
  ["1mo", "1M"],
  ["w", "1w"],
  ["3d", "3d"],
  ["1s", "1s"],
  ["45", "45m"],
  ["24h", "1d"],
  ["7", null],
  ["2M", null],
  ["", null],
  ["x", null],
  ["0", null],
])("reads the timeframe %s as %s", (text, name) => {
  expect(parseTimeframe(text)).toBe(name);
});
