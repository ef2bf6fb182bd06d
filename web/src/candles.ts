/** The candles of one channel, ascending by open time: the newest version of each that has been seen. */

import type { Candle } from "./model";

export type Effect = "none" | "replaced" | "appended" | "inserted";

/** Whether `next` takes the place of `held`: the higher rev wins; at equal rev only an open row gives way. */
export function supersedes(held: Candle, next: Candle): boolean {
  return next.rev > held.rev || (next.rev === held.rev && held.state === "open");
}

export class CandleTable {
  #rows: Candle[] = [];

  get rows(): readonly Candle[] {
    return this.#rows;
  }

  get first(): Candle | undefined {
    return this.#rows[0];
  }

  get last(): Candle | undefined {
    return this.#rows.at(-1);
  }

  clear(): void {
    this.#rows = [];
  }

  /** Takes one row of the stream and says what it did to the table. */
  apply(row: Candle): Effect {
    const last = this.last;
    if (last === undefined || row.open_time > last.open_time) {
      this.#rows.push(row);
      return "appended";
    }
    const index = this.#lowerBound(row.open_time);
    const held = this.#rows[index];
    if (held === undefined || held.open_time !== row.open_time) {
      this.#rows.splice(index, 0, row);
      return "inserted";
    }
    if (!supersedes(held, row)) return "none";
    this.#rows[index] = row;
    return "replaced";
  }

  /**
   * Takes a page of history. A held row is replaced only by a higher rev: an open row of a page
   * may be older than the one the stream has already brought. Returns how many rows were new.
   */
  merge(page: readonly Candle[]): number {
    const byTime = new Map(this.#rows.map((row) => [row.open_time, row]));
    for (const row of page) {
      const held = byTime.get(row.open_time);
      if (held === undefined || row.rev > held.rev || (supersedes(held, row) && row.state !== "open")) {
        byTime.set(row.open_time, row);
      }
    }
    const added = byTime.size - this.#rows.length;
    this.#rows = [...byTime.values()].sort((a, b) => a.open_time - b.open_time);
    return added;
  }

  find(openTime: number): Candle | undefined {
    const row = this.#rows[this.#lowerBound(openTime)];
    return row?.open_time === openTime ? row : undefined;
  }

  /** Whether a row is so new that its completeness cannot have been proven yet. */
  isSettling(openTime: number): boolean {
    const newest = this.#rows.slice(-2);
    const last = newest.at(-1);
    if (last === undefined) return false;
    return openTime >= (newest[0]?.open_time ?? 0) || openTime > last.open_time - 15_000;
  }

  #lowerBound(openTime: number): number {
    let low = 0;
    let high = this.#rows.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#rows[middle]?.open_time ?? Number.POSITIVE_INFINITY) < openTime) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/**
 * Whether a candle is known to lack trades. What cannot be proven is no hole: `complete` is null, or the frame is
 * `1s`, which is folded from trades on read and carries no proof.
 */
export function isIncomplete(row: Candle, settling: boolean): boolean {
  return row.tf !== "1s" && row.complete === false && row.state !== "open" && !settling;
}
