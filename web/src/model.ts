/** The rows as the server sends them: prices and sizes are decimal strings, times are UTC milliseconds. */

export type CandleState = "open" | "closed" | "final";

export interface Candle {
  instrument: string;
  tf: string;
  open_time: number;
  /** Prices are null in a bucket known to be empty (import or fill). */
  open: string | null;
  high: string | null;
  low: string | null;
  close: string | null;
  volume: string;
  trades: number;
  state: CandleState;
  rev: number;
  /** null: the instrument's ids cannot prove completeness. */
  complete: boolean | null;
  pos: number;
  origin: string;
}

export interface Trade {
  instrument: string;
  seq: number;
  trade_id: number | string;
  ts_event: number;
  ts_recv: number;
  price: string;
  size: string;
  side: "buy" | "sell" | "unknown";
}

/** A row of channel `health`, of kind `stream_health`, `book_state`, `gap_opened` or `gap_closed`; times in ms. */
export interface Condition {
  kind: string;
  source?: string;
  /** null: the whole source. */
  instrument?: string | null;
  state?: string;
  detail?: string;
  ts?: number;
  /** The ids on either side of a gap. */
  left_id?: number;
  right_id?: number;
  left_ts?: number | null;
  right_ts?: number | null;
  reason?: string;
  attempts?: number;
}

/** The best levels of an order book, `[price, size]`, best first. Only a live one is current. */
export interface Book {
  instrument: string;
  state: "live" | "stale" | "syncing";
  ts_event: number | null;
  detail?: string;
  bids: [string, string][];
  asks: [string, string][];
}

/** What of a tape is proven to be there. `complete` null: its ids prove nothing. */
export interface Coverage {
  trades: number;
  ranges: [number, number][];
  gaps: { state: string }[];
  complete: boolean | null;
  position: string;
}

/** The server itself. */
export interface Status {
  version: string;
  engine: string;
  trouble: string | null;
}

export interface Instrument {
  id: string;
  symbol: string;
  venue: string;
  base: string;
  quote: string;
  price_scale: number;
  simulated?: boolean;
}

export interface Ticker {
  last: string | null;
  change_pct_24h: string | number | null;
  high_24h: string | null;
  low_24h: string | null;
  volume_24h: string | null;
  /** Of the newest trade. */
  ts: number | null;
  /** Time since then on the server's clock. */
  data_age_ms: number | null;
}

/** The part of a position after the colon; -1 when there is none. */
export function offsetOf(position: string | undefined): number {
  return position === undefined ? -1 : Number(position.slice(position.lastIndexOf(":") + 1));
}

export function epochOf(position: string): string {
  return position.slice(0, position.lastIndexOf(":"));
}

export function isSimulated(instrument: Instrument | undefined, id: string): boolean {
  return instrument?.simulated ?? id.startsWith("sim:");
}
