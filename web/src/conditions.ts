/** What the server says of the streams, the book and the gaps behind one instrument: the state now. */

import type { Condition } from "./model";

export class Conditions {
  readonly #streams = new Map<string, Condition>();
  readonly #gaps = new Map<string, Condition>();
  /** Of the order book; null while nothing was said. */
  book: Condition | null = null;

  /** By source, the whole source before its streams. */
  get streams(): Condition[] {
    return [...this.#streams.entries()].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, row]) => row);
  }

  /** Open ones, the newest first. */
  get gaps(): Condition[] {
    return [...this.#gaps.values()].sort((a, b) => Number(b.right_id) - Number(a.right_id));
  }

  /** Why nothing new can come although the server is there. */
  get trouble(): string | undefined {
    const row = [...this.#streams.values()].find(({ state }) => state !== "connected");
    return row && [`${row.source} is ${row.state}`, row.detail].filter(Boolean).join(": ");
  }

  clear(): void {
    this.#streams.clear();
    this.#gaps.clear();
    this.book = null;
  }

  apply(rows: readonly Condition[]): void {
    for (const row of rows) {
      const gap = `${row.left_id}-${row.right_id}`;
      if (row.kind === "stream_health") this.#streams.set(`${row.source} ${row.instrument ?? ""}`, row);
      else if (row.kind === "book_state") this.book = row;
      else if (row.kind === "gap_opened") this.#gaps.set(gap, row);
      else if (row.kind === "gap_closed") this.#gaps.delete(gap);
    }
  }
}
