/** Fuzzy search over instruments: letters in order, runs and beginnings count more. */

import type { Instrument } from "./model";

/** Score of `query` in `text`, higher is better; null when the letters do not occur in order. */
export function score(query: string, text: string): number | null {
  const wanted = query.toLowerCase().replace(/[\s/:-]/g, "");
  const within = text.toLowerCase();
  let total = 0;
  let from = 0;
  for (const letter of wanted) {
    const at = within.indexOf(letter, from);
    if (at < 0) return null;
    const isStart = at === 0 || /[^a-z0-9]/.test(within[at - 1] ?? "");
    total += at === from && from > 0 ? 4 : isStart ? 3 : 1;
    from = at + 1;
  }
  return total - within.length / 100;
}

/** The instruments that match, best first; all of them, in their order, for an empty query. */
export function searchInstruments(query: string, instruments: readonly Instrument[]): Instrument[] {
  if (query.trim() === "") return [...instruments];
  return instruments
    .map((instrument) => ({ instrument, points: best(query, instrument) }))
    .filter((item) => item.points !== null)
    .sort((a, b) => (b.points ?? 0) - (a.points ?? 0))
    .map(({ instrument }) => instrument);
}

function best(query: string, { id, symbol, base, quote }: Instrument): number | null {
  const points = [symbol, id, `${base}/${quote}`].map((text) => score(query, text)).filter((value) => value !== null);
  return points.length === 0 ? null : Math.max(...points);
}
