/** Invented rows and a socket that a test drives by hand. */

import type { Candle, CandleState, Instrument, Trade } from "../model";

export function candle(openTime: number, patch: Partial<Candle> = {}): Candle {
  return {
    instrument: "sim:AB",
    tf: "1m",
    open_time: openTime,
    open: "1.50",
    high: "2.00",
    low: "1.00",
    close: "1.75",
    volume: "10",
    trades: 3,
    state: "final" as CandleState,
    rev: 0,
    complete: true,
    pos: 1,
    origin: "tape",
    ...patch,
  };
}

export function trade(seq: number, patch: Partial<Trade> = {}): Trade {
  return {
    instrument: "sim:AB",
    seq,
    trade_id: 900 + seq,
    ts_event: 1_000 * seq,
    ts_recv: 1_000 * seq + 5,
    price: "1.75",
    size: "0.5",
    side: "buy",
    ...patch,
  };
}

export function instrument(id: string, patch: Partial<Instrument> = {}): Instrument {
  const [venue = "", symbol = ""] = id.split(":");
  return { id, venue, symbol, base: "", quote: "", price_scale: 2, ...patch };
}

export class HandSocket {
  readyState = 0;
  sent: Record<string, unknown>[] = [];
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: string }) => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;

  constructor(readonly url: string) {}

  send(text: string): void {
    this.sent.push(JSON.parse(text) as Record<string, unknown>);
  }

  close(): void {
    this.readyState = 3;
  }

  open(): void {
    this.readyState = 1;
    this.onopen?.();
    this.receive({ type: "welcome", server_ts: 1 });
  }

  receive(...frames: object[]): void {
    this.onmessage?.({ data: JSON.stringify(frames.length === 1 ? frames[0] : frames) });
  }

  drop(code = 1006, reason = ""): void {
    this.readyState = 3;
    this.onclose?.({ code, reason });
  }

  requests(op: string): Record<string, unknown>[] {
    return this.sent.filter((message) => message.op === op);
  }
}
