/** Writes an order book into the page: a fixed set of rows whose text changes, so nothing is created per update. */

import { grouped } from "./format";
import { type Ladder, type LadderRow, ladderOf, priceScaleOf, stepsOf } from "./ladder";
import type { Book } from "./model";

/** Levels of a side that are shown. */
export const LEVELS = 10;
/** Levels of a side that are asked for, so that groups of them can be shown; the channel offers 5, 10, 20, … */
export const DEPTH = 100;

/** Where the parts of the panel are. */
export interface BookParts {
  panel: HTMLElement;
  state: HTMLElement;
  step: HTMLSelectElement;
  asks: HTMLElement;
  bids: HTMLElement;
  mid: HTMLElement;
  spread: HTMLElement;
  note: HTMLElement;
}

/** What the panel says instead of `live`. */
const NOTES: Record<string, string> = {
  syncing: "Synchronising with the venue…",
  none: "No order book of this instrument.",
  waiting: "Waiting for the order book…",
};

export class BookView {
  readonly #parts: BookParts;
  readonly #asks: HTMLElement[];
  readonly #bids: HTMLElement[];
  #shown: Book | null | undefined = undefined;
  #step = "";
  #instrument = "";
  #scale = 0;

  constructor(parts: BookParts) {
    this.#parts = parts;
    this.#asks = Array.from({ length: LEVELS }, () => row(parts.asks)).reverse(); // the best ask is the lowest
    this.#bids = Array.from({ length: LEVELS }, () => row(parts.bids));
    parts.step.addEventListener("change", () => {
      this.#step = parts.step.value;
      this.#draw();
    });
  }

  /** Shows a book; undefined: nothing has come yet, null: there is none. A book that is being synchronised has no
   * levels to believe; those of a stale one are dimmed, as they once were. */
  show(book: Book | null | undefined): void {
    if (book === this.#shown && this.#parts.panel.dataset.state !== undefined) return;
    this.#shown = book;
    const state = book === undefined ? "waiting" : (book?.state ?? "none");
    const { panel, note } = this.#parts;
    panel.dataset.state = state;
    this.#parts.state.textContent = state in NOTES && state !== "syncing" ? "" : state;
    this.#parts.state.title = book?.detail ?? "";
    const trouble = state === "stale" ? `Not current: ${book?.detail || "the venue's stream has stopped"}` : "";
    note.textContent = NOTES[state] ?? trouble;
    if (book) this.#offer(book);
    this.#draw();
  }

  #draw(): void {
    const book = this.#shown;
    this.#write(book && book.state !== "syncing" ? ladderOf(book, LEVELS, this.#step, DEPTH) : EMPTY);
  }

  /** The steps this book's prices can be grouped by. Trailing zeros are not sent: the most digits seen count. */
  #offer(book: Book): void {
    if (book.instrument !== this.#instrument) [this.#instrument, this.#scale, this.#step] = [book.instrument, 0, ""];
    this.#scale = Math.max(this.#scale, priceScaleOf(book));
    const steps = stepsOf(book, this.#scale);
    const { step } = this.#parts;
    if ([...step.options].map(({ text }) => text).join() === steps.join()) return;
    if (!steps.slice(1).includes(this.#step)) this.#step = "";
    step.replaceChildren(...steps.map((text, at) => new Option(text, at === 0 ? "" : text)));
    step.value = this.#step;
  }

  #write(ladder: Ladder): void {
    for (const [at, item] of this.#asks.entries()) fill(item, ladder.asks[at]);
    for (const [at, item] of this.#bids.entries()) fill(item, ladder.bids[at]);
    this.#parts.mid.textContent = ladder.mid === null ? "–" : grouped(ladder.mid);
    this.#parts.spread.textContent = ladder.spread === null ? "" : `spread ${grouped(ladder.spread)}${parts(ladder)}`;
  }
}

const EMPTY: Ladder = { asks: [], bids: [], spread: null, mid: null, points: null };

function parts({ points }: Ladder): string {
  return points === null ? "" : ` · ${points < 0.01 ? "<0.01" : points.toFixed(2)} bp`;
}

function row(list: HTMLElement): HTMLElement {
  const item = list.appendChild(document.createElement("li"));
  for (const name of ["book-price", "book-size", "book-total"]) {
    item.appendChild(document.createElement("span")).className = name;
  }
  return item;
}

function fill(item: HTMLElement, level: LadderRow | undefined): void {
  const texts = level === undefined ? ["", "", ""] : [grouped(level.price), level.size, level.total];
  for (const [at, text] of texts.entries()) {
    const cell = item.children[at];
    if (cell && cell.textContent !== text) cell.textContent = text;
  }
  item.classList.toggle("empty", level === undefined);
  item.style.setProperty("--depth", (level?.depth ?? 0).toFixed(4)); // through the object model: no inline style
}
