/** The open view: joins pages of history and the live stream into one table, and says what a chart must redraw. */

import type { Api } from "./api";
import { CandleTable } from "./candles";
import type { Channel } from "./feed";
import { DEPTH } from "./book";
import type { BookFrame, DataFrame } from "./frames";
import type { Book, Candle, Trade } from "./model";

export const SNAPSHOT = 500;
export const PAGE = 500;
export const TAPE_ROWS = 50;
/** Books a second: more than the eye follows. */
const BOOK_RATE = 10;
/** Pages fetched at most to keep a time range across a switch of timeframe. */
const REACH_PAGES = 8;

/** What happened since the last drain: either everything is new, or these rows changed. */
export interface Changes {
  reset: boolean;
  rows: Candle[];
}

interface Subscriptions {
  setChannels(channels: Channel[]): void;
}

export interface MarketEvents {
  onChange: () => void;
  onError: (message: string) => void;
}

export class Market {
  readonly table = new CandleTable();
  instrument = "";
  tf = "";
  /** Newest first. */
  trades: Trade[] = [];
  /** undefined: none has come yet; null: the server knows of none. */
  book: Book | null | undefined = undefined;
  /** Live rows that changed the table since the view was opened. */
  updates = 0;
  exhausted = false;
  loaded = false;
  #loading: Promise<void> | null = null;
  #changed = new Map<number, Candle>();
  #reset = true;
  /** Grows with each view, so that an answer for an old one is recognised. */
  #view = 0;
  #wantsBook = true;

  constructor(
    readonly feed: Subscriptions,
    readonly api: Api,
    readonly events: MarketEvents,
  ) {}

  open(instrument: string, tf: string): void {
    if (instrument !== this.instrument) {
      this.trades = [];
      this.book = undefined;
    }
    this.instrument = instrument;
    this.tf = tf;
    this.#view += 1;
    this.#loading = null;
    this.updates = 0;
    this.#clear();
    this.#follow();
    this.events.onChange();
  }

  /** Follow the order book, or no longer: a panel nobody sees needs no data. */
  wantBook(wanted: boolean): void {
    if (wanted === this.#wantsBook) return;
    this.#wantsBook = wanted;
    this.book = undefined;
    if (this.instrument !== "") this.#follow();
    this.events.onChange();
  }

  #follow(): void {
    const book = { ch: this.bookChannel, levels: DEPTH, max_rate: BOOK_RATE };
    this.feed.setChannels([
      { ch: this.candleChannel, snapshot: SNAPSHOT },
      { ch: this.tradeChannel, snapshot: TAPE_ROWS },
      { ch: `health@${this.instrument}` },
      ...(this.#wantsBook ? [book] : []),
    ]);
  }

  get candleChannel(): string {
    return `candle@${this.instrument}@${this.tf}`;
  }

  get tradeChannel(): string {
    return `trade@${this.instrument}`;
  }

  get bookChannel(): string {
    return `book_top@${this.instrument}`;
  }

  get isLoading(): boolean {
    return this.#loading !== null || !this.loaded;
  }

  receive(frame: DataFrame): void {
    if (frame.ch === this.candleChannel) this.#candles(frame);
    else if (frame.ch === this.tradeChannel) this.#trades(frame);
    this.events.onChange();
  }

  receiveBook(frame: BookFrame): void {
    if (frame.ch !== this.bookChannel) return;
    this.book = frame.data[0] ?? null;
    this.events.onChange();
  }

  /** Hands over what has changed since the last call. */
  drain(): Changes {
    const changes = { reset: this.#reset, rows: [...this.#changed.values()].sort((a, b) => a.open_time - b.open_time) };
    this.#reset = false;
    this.#changed = new Map();
    return changes;
  }

  /** Fetches the page before the first candle; one request at a time, none after the first candle of all. */
  loadOlder(): Promise<void> {
    const first = this.table.first;
    if (this.#loading !== null) return this.#loading;
    if (first === undefined || this.exhausted) return Promise.resolve();
    const loading = this.#page(first.open_time).finally(() => {
      if (this.#loading === loading) this.#loading = null;
      this.events.onChange();
    });
    this.#loading = loading;
    return loading;
  }

  /** Loads history until `from` (ms) is covered, as far as is sensible. */
  async reach(from: number): Promise<void> {
    const view = this.#view;
    for (let page = 0; page < REACH_PAGES; page += 1) {
      const first = this.table.first;
      if (view !== this.#view || first === undefined || first.open_time <= from || this.exhausted) return;
      await this.loadOlder();
    }
  }

  async #page(end: number): Promise<void> {
    const view = this.#view;
    try {
      const rows = await this.api.candles(this.instrument, this.tf, PAGE, end);
      if (view !== this.#view) return;
      const added = this.table.merge(rows);
      if (added === 0) this.exhausted = true;
      else this.#reset = true;
    } catch (error) {
      if (view !== this.#view) return;
      this.exhausted = true; // until the next snapshot: a failing server is not asked again by every scroll
      this.events.onError(`History could not be loaded: ${String((error as Error).message)}`);
    }
  }

  /** After a gap the rows held may be old versions: the newest pages are read again. */
  async #refetch(): Promise<void> {
    const view = this.#view;
    const rows = await this.api.candles(this.instrument, this.tf, PAGE).catch(() => []);
    if (view !== this.#view || rows.length === 0) return;
    this.table.merge(rows);
    this.#reset = true;
    this.events.onChange();
  }

  #candles(frame: DataFrame): void {
    if (frame.type === "snapshot") {
      this.#clear();
      this.loaded = true;
      for (const row of frame.data as Candle[]) this.table.apply(row);
    } else if (frame.type === "gap") {
      void this.#refetch();
    } else if (frame.type === "event" || frame.type === "update") {
      for (const row of frame.data as Candle[]) this.#apply(row);
    }
  }

  #apply(row: Candle): void {
    if (this.table.apply(row) === "none") return;
    this.updates += 1;
    this.#changed.set(row.open_time, row);
  }

  #trades(frame: DataFrame): void {
    if (frame.type !== "snapshot" && (frame.type !== "event" || frame.late === true)) return;
    const newest = [...(frame.data as Trade[])].reverse();
    this.trades = (frame.type === "snapshot" ? newest : [...newest, ...this.trades]).slice(0, TAPE_ROWS);
  }

  #clear(): void {
    this.table.clear();
    this.#changed = new Map();
    this.#reset = true;
    this.exhausted = false;
    this.loaded = false;
  }
}
