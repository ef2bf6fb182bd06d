import { describe, expect, it } from "vitest";
import type { Api } from "../api";
import type { Channel } from "../feed";
import { Market, TAPE_ROWS } from "../market";
import type { Candle } from "../model";
import { candle, trade } from "./rows";

const MINUTE = 60_000;
const CANDLES = "candle@sim:AB@1m";
const TRADES = "trade@sim:AB";

interface Call {
  end: number | undefined;
  answer: (rows: Candle[]) => void;
  fail: (error: Error) => void;
}

function rig(): { market: Market; calls: Call[]; channels: Channel[][]; errors: string[] } {
  const calls: Call[] = [];
  const channels: Channel[][] = [];
  const errors: string[] = [];
  const api = {
    candles: (_id: string, _tf: string, _limit: number, end?: number) =>
      new Promise<Candle[]>((answer, fail) => calls.push({ end, answer, fail })),
  } as unknown as Api;
  const feed = { setChannels: (list: Channel[]) => channels.push(list) };
  const market = new Market(feed, api, { onChange: () => undefined, onError: (text) => errors.push(text) });
  market.open("sim:AB", "1m");
  return { market, calls, channels, errors };
}

function snapshot(...minutes: number[]): Parameters<Market["receive"]>[0] {
  return { type: "snapshot", ch: CANDLES, pos: "e:1", data: minutes.map((minute) => candle(minute * MINUTE)) };
}

function event(row: Candle): Parameters<Market["receive"]>[0] {
  return { type: "event", ch: CANDLES, pos: "e:2", kind: "revised", data: [row] };
}

describe("the live stream", () => {
  it("subscribes to the candles and trades of the view", () => {
    const { channels } = rig();
    expect(channels.at(-1)?.map(({ ch }) => ch)).toEqual([CANDLES, TRADES, "health@sim:AB", "book_top@sim:AB"]);
  });

  it("hands over everything after a snapshot, then only what changed", () => {
    const { market } = rig();
    market.receive(snapshot(1, 2, 3));
    expect(market.drain().reset).toBe(true);
    market.receive(event(candle(2 * MINUTE, { rev: 1, close: "1.9" })));
    market.receive(event(candle(2 * MINUTE, { rev: 1, close: "1.9" })));
    market.receive({ type: "update", ch: CANDLES, data: [candle(4 * MINUTE, { state: "open" })] });
    const { reset, rows } = market.drain();
    expect(reset).toBe(false);
    expect(rows.map((row) => [row.open_time / MINUTE, row.close])).toEqual([
      [2, "1.9"],
      [4, "1.75"],
    ]);
    expect(market.updates).toBe(2);
    expect(market.drain()).toEqual({ reset: false, rows: [] });
  });

  it("ignores frames of a view that was left", () => {
    const { market } = rig();
    market.receive(snapshot(1, 2));
    market.open("sim:AB", "5m");
    expect(market.table.rows).toEqual([]);
    market.receive(event(candle(3 * MINUTE)));
    expect(market.table.rows).toEqual([]);
  });

  it("shows no value of the old instrument after a switch", () => {
    const { market } = rig();
    market.receive({ type: "snapshot", ch: TRADES, pos: "e:1", data: [trade(1)] });
    market.open("sim:CD", "1m");
    expect(market.trades).toEqual([]);
    expect(market.table.last).toBeUndefined();
  });

  it("keeps the newest trades first, bounded, and leaves late ones out", () => {
    const { market } = rig();
    market.receive({ type: "snapshot", ch: TRADES, pos: "e:2", data: [trade(1), trade(2)] });
    market.receive({ type: "event", ch: TRADES, pos: "e:3", late: true, data: [trade(3)] });
    const many = Array.from({ length: 60 }, (_, index) => trade(4 + index));
    market.receive({ type: "event", ch: TRADES, pos: "e:63", data: many });
    expect(market.trades).toHaveLength(TAPE_ROWS);
    expect(market.trades.slice(0, 2).map(({ seq }) => seq)).toEqual([63, 62]);
    expect(market.trades.some(({ seq }) => seq === 3)).toBe(false);
  });

  it("reads the newest page again after a gap", async () => {
    const { market, calls } = rig();
    market.receive(snapshot(1, 2));
    market.drain();
    market.receive({ type: "gap", ch: CANDLES, reason: "history_expired" });
    calls[0]?.answer([candle(2 * MINUTE, { rev: 4, close: "7" }), candle(3 * MINUTE)]);
    await Promise.resolve().then(() => undefined);
    expect(calls[0]?.end).toBeUndefined();
    await new Promise((done) => setTimeout(done));
    expect(market.drain().reset).toBe(true);
    expect(market.table.rows.map(({ close }) => close)).toEqual(["1.75", "7", "1.75"]);
  });
});

describe("history", () => {
  it("has one request in flight, ends at the first candle, and never asks again after it", async () => {
    const { market, calls } = rig();
    market.receive(snapshot(10, 11));
    const both = [market.loadOlder(), market.loadOlder()];
    expect(calls).toHaveLength(1);
    expect(calls[0]?.end).toBe(10 * MINUTE);
    calls[0]?.answer([candle(8 * MINUTE), candle(9 * MINUTE)]);
    await Promise.all(both);
    expect(market.table.rows.map((row) => row.open_time / MINUTE)).toEqual([8, 9, 10, 11]);
    const last = market.loadOlder();
    calls[1]?.answer([]);
    await last;
    expect(market.exhausted).toBe(true);
    await market.loadOlder();
    expect(calls).toHaveLength(2);
  });

  it("forgets an answer for a view that was left", async () => {
    const { market, calls } = rig();
    market.receive(snapshot(10));
    const loading = market.loadOlder();
    market.open("sim:CD", "1m");
    calls[0]?.answer([candle(9 * MINUTE)]);
    await loading;
    expect(market.table.rows).toEqual([]);
  });

  it("says so when history cannot be loaded", async () => {
    const { market, calls, errors } = rig();
    market.receive(snapshot(10));
    const loading = market.loadOlder();
    calls[0]?.fail(new Error("boom"));
    await loading;
    expect(errors).toEqual(["History could not be loaded: boom"]);
  });

  it("pages back until a moment is covered", async () => {
    const { market, calls } = rig();
    market.receive(snapshot(10));
    const reaching = market.reach(7 * MINUTE);
    calls[0]?.answer([candle(9 * MINUTE)]);
    await new Promise((done) => setTimeout(done));
    calls[1]?.answer([candle(7 * MINUTE), candle(8 * MINUTE)]);
    await reaching;
    expect(calls).toHaveLength(2);
    expect(market.table.first?.open_time).toBe(7 * MINUTE);
  });
});
