import { expect, it } from "vitest";
import { ageText, sinceText } from "../format";

const AT = Date.UTC(2026, 10, 21, 3, 12);

it("says since when, with the date where it is another day's", () => {
  expect(sinceText(AT, AT + 3_600_000, "utc")).toBe("since 03:12");
  expect(sinceText(AT, AT + 86_400_000, "utc")).toBe("since 21 Nov 03:12");
});

it.each([
  [-5, "0 ms"],
  [340, "340 ms"],
  [1_500, "1 s"],
  [119_000, "119 s"],
  [120_000, "2 min"],
  [7_300_000, "2 h"],
  [200_000_000, "2 d"],
])("says how long %d ms are", (ms, text) => expect(ageText(ms)).toBe(text));
