import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Feed, type Phase } from "../feed";
import type { DataFrame } from "../frames";
import type { Trade } from "../model";
import { candle, HandSocket, trade } from "./rows";

const TRADES = "trade@sim:AB";
const CANDLES = "candle@sim:AB@1m";

interface Rig {
  feed: Feed;
  sockets: HandSocket[];
  frames: DataFrame[];
  phases: Phase[];
  refused: string[];
  clocks: number[];
  socket: () => HandSocket;
  seqs: () => number[];
}

function rig(random = 0.5): Rig {
  const sockets: HandSocket[] = [];
  const frames: DataFrame[] = [];
  const phases: Phase[] = [];
  const refused: string[] = [];
  const clocks: number[] = [];
  const feed = new Feed({
    url: "ws://x/v1/ws",
    onData: (frame) => frames.push(frame),
    onPhase: (phase) => phases.push(phase),
    onRefused: (ch) => refused.push(ch),
    onClock: (offset) => clocks.push(offset),
    random: () => random,
    socket: (url) => {
      const made = new HandSocket(url);
      sockets.push(made);
      return made as unknown as WebSocket;
    },
  });
  feed.setChannels([
    { ch: CANDLES, snapshot: 500 },
    { ch: TRADES, snapshot: 50 },
  ]);
  feed.start();
  const seqs = (): number[] =>
    frames
      .filter((frame) => frame.ch === TRADES && "data" in frame)
      .flatMap((frame) => ("data" in frame ? (frame.data as Trade[]).map(({ seq }) => seq) : []));
  const socket = (): HandSocket => sockets.at(-1) as HandSocket;
  return { feed, sockets, frames, phases, refused, clocks, socket, seqs };
}

function trades(...seqs: number[]): object {
  const pos = `e1:${seqs.at(-1)}`;
  return { type: "event", ch: TRADES, pos, from: `e1:${seqs[0]}`, data: seqs.map((seq) => trade(seq)) };
}

function started(at = 10): Rig {
  const made = rig();
  made.socket().open();
  made
    .socket()
    .receive(
      { type: "subscribed", id: 1, channels: [{ ch: TRADES, pos: `e1:${at}`, recovered: false }] },
      { type: "snapshot", ch: TRADES, pos: `e1:${at}`, data: [trade(at)] },
      { type: "snapshot", ch: CANDLES, pos: "e1:70", data: [candle(60_000)] },
    );
  made.frames.length = 0;
  return made;
}

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

describe("subscription", () => {
  it("asks for snapshots at first", () => {
    const { socket } = rig();
    socket().open();
    expect(socket().requests("subscribe")[0]?.channels).toEqual([
      { ch: CANDLES, snapshot: 500 },
      { ch: TRADES, snapshot: 50 },
    ]);
  });

  it("keeps a channel that stays wanted when another is replaced", () => {
    const { feed, socket } = started();
    socket().sent.length = 0;
    feed.setChannels([
      { ch: "candle@sim:AB@5m", snapshot: 500 },
      { ch: TRADES, snapshot: 50 },
    ]);
    expect(socket().requests("unsubscribe")[0]?.channels).toEqual([{ ch: CANDLES }]);
    expect(socket().requests("subscribe")[0]?.channels).toEqual([{ ch: "candle@sim:AB@5m", snapshot: 500 }]);
    expect(feed.position(TRADES)).toBe("e1:10");
    expect(feed.position(CANDLES)).toBeUndefined();
  });

  it("drops frames of a channel that is no longer wanted", () => {
    const { feed, socket, frames } = started();
    feed.setChannels([{ ch: CANDLES, snapshot: 500 }]);
    socket().receive(trades(11));
    expect(frames).toEqual([]);
  });

  it("reports a refused channel", () => {
    const { socket, refused } = rig();
    socket().open();
    socket().receive({ type: "subscribed", id: 1, channels: [], errors: [{ ch: TRADES, code: 4404, msg: "unknown" }] });
    expect(refused).toEqual([TRADES]);
  });
});

it("reports every waiting channel when a whole request is refused", () => {
  const { socket, refused } = rig();
  socket().open();
  socket().receive({ type: "error", id: 1, code: "bad_request", msg: "no" });
  expect(refused).toEqual([CANDLES, TRADES]);
});

describe("contiguous channels", () => {
  it("reads several objects joined into one message", () => {
    const { socket, seqs } = started();
    socket().receive(trades(11), trades(12, 13));
    expect(seqs()).toEqual([11, 12, 13]);
  });

  it("drops duplicates, whole frames and the seen part of a frame", () => {
    const { socket, seqs } = started();
    socket().receive(trades(11, 12));
    socket().receive(trades(11, 12));
    socket().receive(trades(12, 13));
    expect(seqs()).toEqual([11, 12, 13]);
  });

  it("asks again from the last position when a record is missing, and lets nothing past the hole", () => {
    const { socket, seqs, feed } = started();
    socket().sent.length = 0;
    socket().receive(trades(11));
    socket().receive(trades(14));
    socket().receive(trades(15));
    expect(seqs()).toEqual([11]);
    const [request] = socket().requests("subscribe");
    expect(socket().requests("subscribe")).toHaveLength(1);
    expect(request?.channels).toEqual([{ ch: TRADES, snapshot: 50, since: "e1:11" }]);
    socket().receive({
      type: "subscribed",
      id: request?.id,
      channels: [{ ch: TRADES, pos: "e1:15", recovered: true, replayed: 4 }],
    });
    socket().receive(trades(12, 13, 14, 15));
    socket().receive(trades(16));
    expect(seqs()).toEqual([11, 12, 13, 14, 15, 16]);
    expect(feed.position(TRADES)).toBe("e1:16");
  });

  it("counts a skipped range as seen", () => {
    const { socket, seqs } = started();
    socket().receive({ type: "skip", ch: TRADES, from: "e1:11", to: "e1:40", count: 30 });
    socket().receive(trades(41));
    expect(seqs()).toEqual([41]);
  });

  it("starts anew when the tape has another epoch", () => {
    const { socket, seqs } = started();
    socket().sent.length = 0;
    socket().receive({ type: "event", ch: TRADES, pos: "e2:3", data: [trade(3)] });
    expect(socket().requests("subscribe")[0]?.channels).toEqual([{ ch: TRADES, snapshot: 50 }]);
    socket().receive({ type: "snapshot", ch: TRADES, pos: "e2:3", data: [trade(2), trade(3)] });
    socket().receive({ type: "event", ch: TRADES, pos: "e2:4", data: [trade(4)] });
    expect(seqs()).toEqual([2, 3, 4]);
  });
});

describe("candle channels", () => {
  it("takes a jump of the position for no hole", () => {
    const { socket, frames, feed } = started();
    socket().sent.length = 0;
    socket().receive({ type: "event", ch: CANDLES, pos: "e1:95", kind: "closed", data: [candle(60_000)] });
    expect(frames).toHaveLength(1);
    expect(socket().sent).toEqual([]);
    expect(feed.position(CANDLES)).toBe("e1:95");
  });

  it("does not move the position for a provisional update", () => {
    const { socket, frames, feed } = started();
    socket().receive({ type: "update", ch: CANDLES, data: [candle(120_000, { state: "open" })] });
    expect(frames).toHaveLength(1);
    expect(feed.position(CANDLES)).toBe("e1:70");
  });
});

describe("reconnection", () => {
  it("resumes every channel from its last position, with jitter", () => {
    const { socket, sockets, seqs, phases } = started();
    socket().receive(trades(11));
    socket().drop();
    expect(phases.at(-1)).toBe("waiting");
    vi.advanceTimersByTime(50 + 0.5 * 400 - 1);
    expect(sockets).toHaveLength(1);
    vi.advanceTimersByTime(2);
    expect(sockets).toHaveLength(2);
    socket().open();
    expect(socket().requests("subscribe")[0]?.channels).toEqual([
      { ch: CANDLES, snapshot: 500, since: "e1:70" },
      { ch: TRADES, snapshot: 50, since: "e1:11" },
    ]);
    socket().receive({ type: "subscribed", id: 3, channels: [{ ch: TRADES, pos: "e1:13", recovered: true }] });
    socket().receive(trades(11, 12, 13));
    expect(seqs()).toEqual([11, 12, 13]);
  });

  it("takes the snapshot when the server could not recover", () => {
    const { socket, seqs, feed } = started();
    socket().drop();
    vi.advanceTimersByTime(1_000);
    socket().open();
    socket().receive(
      { type: "subscribed", id: 3, channels: [{ ch: TRADES, pos: "e9:500", recovered: false }] },
      { type: "gap", ch: TRADES, reason: "epoch" },
      { type: "snapshot", ch: TRADES, pos: "e9:500", data: [trade(499), trade(500)] },
    );
    socket().receive({ type: "event", ch: TRADES, pos: "e9:501", data: [trade(501)] });
    expect(seqs()).toEqual([499, 500, 501]);
    expect(feed.position(TRADES)).toBe("e9:501");
  });

  it("backs off longer each time, up to a cap, until a welcome", () => {
    const { socket, sockets } = rig(1);
    for (let attempt = 0; attempt < 12; attempt += 1) {
      socket().drop();
      const wait = 50 + Math.min(10_000, 400 * 2 ** attempt);
      vi.advanceTimersByTime(wait - 1);
      expect(sockets).toHaveLength(attempt + 1);
      vi.advanceTimersByTime(1);
      expect(sockets).toHaveLength(attempt + 2);
    }
    socket().open();
    socket().drop();
    const before = sockets.length;
    vi.advanceTimersByTime(450);
    expect(sockets).toHaveLength(before + 1);
  });

  it("stops at a terminal close code", () => {
    const { socket, sockets, phases } = started();
    socket().drop(4401, "not authenticated");
    vi.advanceTimersByTime(60_000);
    expect(sockets).toHaveLength(1);
    expect(phases.at(-1)).toBe("refused");
  });

  it("gives up a connection that has been silent for 45 s, even if it never says that it closed", () => {
    const { sockets } = started();
    vi.advanceTimersByTime(45_000);
    expect(sockets).toHaveLength(1);
    vi.advanceTimersByTime(16_000);
    expect(sockets.length).toBeGreaterThan(1);
  });
});

it("estimates the server's clock from a ping", () => {
  vi.setSystemTime(1_000_000);
  const { socket, clocks } = rig();
  socket().open();
  const [ping] = socket().requests("ping");
  vi.setSystemTime(1_000_040);
  socket().receive({ type: "pong", id: ping?.id, server_ts: 1_005_020 });
  expect(clocks).toEqual([5_000]);
});

it("survives what is not a frame", () => {
  const { socket, frames } = started();
  socket().onmessage?.({ data: "{not json" });
  socket().onmessage?.({ data: '"text"' });
  socket().receive(trades(11));
  expect(frames).toHaveLength(1);
});
