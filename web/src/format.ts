/** Text for people. Prices and sizes stay the server's decimal strings; only ratios and times are computed. */

import { isDaily } from "./timeframe";

export type Zone = "utc" | "local";

/** Groups the integer part of a decimal string by thousands without touching a digit. */
export function grouped(decimal: string): string {
  const [whole = "", fraction] = decimal.split(".");
  const text = whole.replace(/\B(?=(\d{3})+(?!\d))/g, ",");
  return fraction === undefined ? text : `${text}.${fraction}`;
}

/** `▲ +1.25%`, `▼ −0.40%`, `■ 0.00%`: arrow and sign are always printed, so colour is never the only cue. */
export function changeText(percent: number): string {
  if (!Number.isFinite(percent)) return "–";
  const text = `${Math.abs(percent).toFixed(2)}%`;
  if (text === "0.00%") return `■ ${text}`;
  return percent < 0 ? `▼ −${text}` : `▲ +${text}`;
}

/** Since when figures of a day are of less than one: the date too where it is not today's. */
export function sinceText(ms: number, now: number, zone: Zone): string {
  const [at, today] = [clock(ms, zone), clock(now, zone)];
  const date = at.day === today.day && at.month === today.month ? "" : `${at.day} ${at.month} `;
  return `since ${date}${at.time}`;
}

/** `340 ms`, `12 s`, `5 min`, `3 h`, `2 d`: how long ago, for people. */
export function ageText(ms: number): string {
  if (ms < 1_000) return `${Math.max(0, Math.round(ms))} ms`;
  const units: [number, string][] = [
    [86_400_000, "d"],
    [3_600_000, "h"],
    [60_000, "min"],
    [1_000, "s"],
  ];
  const [length, name] = units.find(([unit]) => ms >= 2 * unit) ?? [1_000, "s"];
  return `${Math.floor(ms / length)} ${name}`;
}

/** A long decimal shortened for a narrow column, e.g. `1.23M`; for figures nobody copies. */
export function compact(decimal: string): string {
  const value = Number(decimal);
  return Number.isFinite(value)
    ? new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 2 }).format(value)
    : decimal;
}

/** Decimals that the strings of a chart need, so that the axis shows what the data says. */
export function decimalsOf(texts: Iterable<string | null>): number {
  let most = 0;
  for (const text of texts) {
    const point = text?.replace(/0+$/, "").indexOf(".") ?? -1;
    if (text && point >= 0) most = Math.max(most, text.replace(/0+$/, "").length - point - 1);
  }
  return Math.min(most, 10);
}

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

interface Clock {
  year: number;
  month: string;
  day: number;
  time: string;
  seconds: string;
}

/** The wall-clock parts of an instant in UTC or in the browser's own zone. */
export function clock(ms: number, zone: Zone): Clock {
  const date = new Date(ms);
  const shifted = zone === "utc" ? date : new Date(ms - date.getTimezoneOffset() * 60_000);
  return {
    year: shifted.getUTCFullYear(),
    month: MONTHS[shifted.getUTCMonth()] ?? "",
    day: shifted.getUTCDate(),
    time: shifted.toISOString().slice(11, 16),
    seconds: shifted.toISOString().slice(11, 19),
  };
}

/** Candles of a day and longer are UTC dates in every zone: their boundaries never shift. */
export function candleTime(ms: number, tf: string, zone: Zone): string {
  const at = clock(ms, isDaily(tf) ? "utc" : zone);
  const date = `${at.day} ${at.month} ${at.year}`;
  return isDaily(tf) ? date : `${date} ${tf === "1s" ? at.seconds : at.time}`;
}

/** Label of a tick on the time axis; in local time a day starts where the local clock says so. */
export function tickLabel(ms: number, weight: "year" | "month" | "day" | "time", tf: string, zone: Zone): string {
  const at = clock(ms, isDaily(tf) ? "utc" : zone);
  if (isDaily(tf)) return weight === "year" ? String(at.year) : weight === "month" ? at.month : String(at.day);
  if (at.seconds === "00:00:00") return at.day === 1 ? at.month : `${at.day} ${at.month}`;
  return tf === "1s" ? at.seconds : at.time;
}
