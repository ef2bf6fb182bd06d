/** Places on the time axis: the chart sets points side by side, so a missing bucket needs an empty place to be seen. */

import type { Candle } from "./model";
import { nextOpen } from "./timeframe";

export interface Slot {
  /** Open time, ms. */
  time: number;
  row: Candle | null;
}

/** Longer holes are drawn this wide: a weekend offline must not push all data off the screen. */
export const WIDEST_HOLE = 30;

/** Empty places between two open times, both exclusive. */
export function holeBetween(left: number, right: number, tf: string): Slot[] {
  const slots: Slot[] = [];
  for (let time = nextOpen(left, tf); time < right && slots.length < WIDEST_HOLE; time = nextOpen(time, tf)) {
    slots.push({ time, row: null });
  }
  return slots;
}

/** All places from the first row to the last. */
export function slotsOf(rows: readonly Candle[], tf: string): Slot[] {
  const slots: Slot[] = [];
  for (const row of rows) {
    const last = slots.at(-1);
    if (last !== undefined) slots.push(...holeBetween(last.time, row.open_time, tf));
    slots.push({ time: row.open_time, row });
  }
  return slots;
}
