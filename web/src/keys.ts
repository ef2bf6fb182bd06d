/** One table of keys: what the page does with them, and what `?` prints. */

import { parseTimeframe, SWITCH_BAR } from "./timeframe";

export type Action =
  | { do: "search"; text: string }
  | { do: "close" }
  | { do: "frame"; text: string }
  | { do: "frame-enter"; tf: string | null }
  | { do: "theme" | "tape" | "book" | "health" | "screenshot" | "help" | "live" }
  | { do: "pan"; by: number }
  | { do: "zoom"; by: number }
  | { do: "instrument"; by: number };

export const KEY_HELP: readonly (readonly [string, string])[] = [
  ["/ or letters", "search instruments"],
  ["15 Enter, 4h Enter", "timeframe by name"],
  ["1 … 9", "timeframe 1 … 9 of the bar"],
  ["j k", "next, previous instrument"],
  ["← →", "pan"],
  ["+ −", "zoom"],
  ["End", "go to live"],
  ["b", "show or hide the order book"],
  ["t", "show or hide trades"],
  ["h", "health of the data"],
  ["d", "dark or light"],
  ["s", "save a PNG of the chart"],
  ["? F1", "these keys"],
  ["Esc", "close"],
];

/** What the page is doing when a key arrives. `frame` is the timeframe text typed so far. */
export interface KeyContext {
  inField: boolean;
  dialogOpen: boolean;
  frame: string;
}

interface Press {
  key: string;
  ctrlKey: boolean;
  metaKey: boolean;
  altKey: boolean;
}

const COMMANDS: Record<string, Action> = {
  "/": { do: "search", text: "" },
  "?": { do: "help" },
  F1: { do: "help" },
  Escape: { do: "close" },
  End: { do: "live" },
  ArrowLeft: { do: "pan", by: -1 },
  ArrowRight: { do: "pan", by: 1 },
  "+": { do: "zoom", by: 1 },
  "=": { do: "zoom", by: 1 },
  "-": { do: "zoom", by: -1 },
  d: { do: "theme" },
  b: { do: "book" },
  t: { do: "tape" },
  h: { do: "health" },
  s: { do: "screenshot" },
  j: { do: "instrument", by: 1 },
  k: { do: "instrument", by: -1 },
};

/** The action of a key press, or null when the press belongs to the browser or to a field. */
export function keyAction(press: Press, context: KeyContext): Action | null {
  if (press.ctrlKey || press.metaKey || press.altKey) return null;
  if (context.dialogOpen || context.inField) return press.key === "Escape" ? { do: "close" } : null;
  if (/^\d$/.test(press.key)) return { do: "frame", text: (context.frame + press.key).slice(-5) };
  if (context.frame !== "") return frameKey(press.key, context.frame);
  const command = COMMANDS[press.key];
  if (command !== undefined) return command;
  return /^\p{L}$/u.test(press.key) ? { do: "search", text: press.key } : null;
}

function frameKey(key: string, frame: string): Action | null {
  if (key === "Enter") return { do: "frame-enter", tf: parseTimeframe(frame) };
  if (key === "Escape") return { do: "close" };
  if (key === "Backspace") return { do: "frame", text: frame.slice(0, -1) };
  return /^[a-zA-Z]$/.test(key) ? { do: "frame", text: (frame + key).slice(-5) } : null;
}

/** A single digit left alone is the place in the switch bar; anything longer waits for Enter. */
export function frameAfterPause(frame: string): string | null {
  return /^[1-9]$/.test(frame) ? (SWITCH_BAR[Number(frame) - 1] ?? null) : null;
}
