/** Writes the trades tape into a list: a fixed set of rows whose text changes, so nothing is created per trade. */

import { clock, grouped, type Zone } from "./format";
import type { Trade } from "./model";

interface Row {
  item: HTMLLIElement;
  price: HTMLElement;
  size: HTMLElement;
  time: HTMLElement;
}

const MARKS = { buy: "▲", sell: "▼", unknown: "■" } as const;
const CLASSES = { buy: "up", sell: "down", unknown: "flat" } as const;

export class TapeView {
  readonly #rows: Row[] = [];
  readonly #list: HTMLElement;
  #shown: readonly Trade[] | null = null;
  #zone: Zone | null = null;
  #paused = false;

  constructor(list: HTMLElement) {
    this.#list = list;
    list.addEventListener("pointerenter", (event) => {
      this.#paused = event.pointerType === "mouse";
    });
    list.addEventListener("pointerleave", () => {
      this.#paused = false;
    });
  }

  /** Shows trades, newest first. While the mouse rests on the list it stands still. */
  show(trades: readonly Trade[], zone: Zone): void {
    const sameTape = trades[0]?.instrument === this.#shown?.[0]?.instrument;
    if ((trades === this.#shown && zone === this.#zone) || (this.#paused && sameTape)) return;
    this.#shown = trades;
    this.#zone = zone;
    while (this.#rows.length < trades.length) this.#rows.push(this.#create());
    const decimals = Math.max(0, ...trades.map(({ size }) => fraction(size)));
    for (const [index, row] of this.#rows.entries()) write(row, trades[index], zone, decimals);
  }

  #create(): Row {
    const item = document.createElement("li");
    const [price, size, time] = ["tape-price", "tape-size", "tape-time"].map((name) => {
      const cell = item.appendChild(document.createElement("span"));
      cell.className = name;
      return cell;
    }) as [HTMLElement, HTMLElement, HTMLElement];
    this.#list.append(item);
    return { item, price, size, time };
  }
}

function fraction(decimal: string): number {
  const point = decimal.indexOf(".");
  return point < 0 ? 0 : decimal.length - point;
}

function write({ item, price, size, time }: Row, trade: Trade | undefined, zone: Zone, decimals: number): void {
  item.hidden = trade === undefined;
  if (trade === undefined) return;
  item.className = CLASSES[trade.side];
  price.textContent = `${MARKS[trade.side]} ${grouped(trade.price)}`;
  size.textContent = trade.size;
  size.dataset.pad = "0".repeat(decimals - fraction(trade.size)); // unseen: it lines up the decimal points
  time.textContent = clock(trade.ts_event, zone).seconds;
}
