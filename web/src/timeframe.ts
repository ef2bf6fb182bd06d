/** Names and lengths of the 18 timeframes. Boundaries belong to the engine; here they only place gaps and labels. */

export const SWITCH_BAR = ["1m", "3m", "5m", "15m", "30m", "45m", "1h", "2h", "3h", "4h", "1d", "1w", "1M"] as const;
export const MENU = ["1s", "6h", "8h", "12h", "3d"] as const;
export const DEFAULT_TIMEFRAME = "1m";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** Length in ms; for `1M` that of the longest month. */
const LENGTHS: Record<string, number> = {
  "1s": 1000,
  "1m": MINUTE,
  "3m": 3 * MINUTE,
  "5m": 5 * MINUTE,
  "15m": 15 * MINUTE,
  "30m": 30 * MINUTE,
  "45m": 45 * MINUTE,
  "1h": HOUR,
  "2h": 2 * HOUR,
  "3h": 3 * HOUR,
  "4h": 4 * HOUR,
  "6h": 6 * HOUR,
  "8h": 8 * HOUR,
  "12h": 12 * HOUR,
  "1d": DAY,
  "3d": 3 * DAY,
  "1w": 7 * DAY,
  "1M": 31 * DAY,
};

export function isTimeframe(name: string): boolean {
  return Object.hasOwn(LENGTHS, name);
}

export function lengthOf(tf: string): number {
  return LENGTHS[tf] ?? MINUTE;
}

/** Whether candles of this frame are labelled by date alone. */
export function isDaily(tf: string): boolean {
  return lengthOf(tf) >= DAY;
}

/** Open time of the bucket after the one that opens at `openTime`. */
export function nextOpen(openTime: number, tf: string): number {
  if (tf !== "1M") return openTime + lengthOf(tf);
  const date = new Date(openTime);
  return Date.UTC(date.getUTCFullYear(), date.getUTCMonth() + 1, 1);
}

const UNITS: Record<string, string> = {
  s: "s",
  m: "m",
  h: "h",
  H: "h",
  d: "d",
  D: "d",
  w: "w",
  W: "w",
  M: "M",
  mo: "M",
};

/**
 * The timeframe that typed text names: `15` is minutes, `60` is `1h`, `4H`, `D`, `1mo` are accepted.
 * Case matters in one place only: `1m` is a minute, `1M` a month. Null when there is no such frame.
 */
export function parseTimeframe(text: string): string | null {
  const match = /^(\d{0,4})(mo|[smhHdDwWM]?)$/.exec(text.trim());
  if (match === null || text.trim() === "") return null;
  const count = match[1] === "" ? 1 : Number(match[1]);
  const unit = UNITS[match[2] || "m"] ?? "m";
  const length = { s: 1000, m: MINUTE, h: HOUR, d: DAY, w: 7 * DAY, M: 31 * DAY }[unit] ?? MINUTE;
  if (unit === "M") return count === 1 ? "1M" : null;
  return Object.keys(LENGTHS).find((name) => name !== "1M" && LENGTHS[name] === count * length) ?? null;
}
