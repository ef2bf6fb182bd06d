/**
 * A stand-in for the server while the page is being worked on: `node dev/mock.mjs [port]`.
 * It serves the built page with the real security header, invented history, and a live stream.
 * `GET /mock/cut` drops all sockets, `GET /mock/pause?ms=5000` also refuses new ones for that long;
 * `GET /mock/book?state=stale` changes the state of all books.
 */

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { candle, candles, lengthOf, priceAt } from "./prices.mjs";
import { accept } from "./socket.mjs";

const WEBAPP = fileURLToPath(new URL("../../src/tapewick/gateways/webapp/", import.meta.url));
const LOGO_STYLE = "'sha256-3pRED1tOXas1FXFoPb9TGCjmYe9XQsmO9OV23khV2nY='";
const CSP = process.env.MOCK_CSP ?? `default-src 'self'; style-src 'self' ${LOGO_STYLE}`;
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml" };
const LEVELS = { "sim:BTCUSDT": 61700, "sim:ETHUSDT": 2610, "binance:SOLUSDT": 158, "chainlink:ETH/USD": 2611 };
const INSTRUMENTS = Object.keys(LEVELS).map((id) => {
  const [venue, symbol] = id.split(":");
  const [base, quote] = symbol.includes("/") ? symbol.split("/") : [symbol.slice(0, -4), symbol.slice(-4)];
  return {
    id,
    symbol,
    venue,
    base,
    quote,
    price_scale: 2,
    size_scale: 5,
    status: "trading",
    simulated: venue === "sim",
  };
});

const clients = new Set();
let pausedUntil = 0;
let bookState = "live";
const seq = new Map(INSTRUMENTS.map(({ id }) => [id, 1000]));

const server = createServer(async (request, response) => {
  const url = new URL(request.url, "http://mock");
  const json = (value, status = 200) => {
    response.writeHead(status, { "content-type": "application/json" });
    response.end(JSON.stringify(value));
  };
  if (url.pathname === "/mock/book") {
    bookState = url.searchParams.get("state");
    return json({});
  }
  if (url.pathname.startsWith("/mock/")) {
    pausedUntil = Date.now() + Number(url.searchParams.get("ms") ?? 0);
    for (const client of clients) client.destroy();
    return json({});
  }
  if (url.pathname === "/v1/instruments") return json({ instruments: INSTRUMENTS });
  if (url.pathname === "/v1/candles") return json(history(url.searchParams));
  if (url.pathname.startsWith("/v1/ticker/")) return json(ticker(decodeURIComponent(url.pathname.slice(11))));
  if (url.pathname.startsWith("/v1/coverage/")) return json(coverage(decodeURIComponent(url.pathname.slice(13))));
  if (url.pathname === "/v1/status") return json({ version: "0.0.0", engine: "native", trouble: null });
  const path = normalize(url.pathname === "/" ? "/index.html" : url.pathname);
  try {
    const body = await readFile(join(WEBAPP, path));
    response.writeHead(200, {
      "content-type": TYPES[extname(path)] ?? "application/octet-stream",
      "content-security-policy": CSP,
    });
    response.end(body);
  } catch {
    json({ title: "Not Found", status: 404 }, 404);
  }
});

function coverage(id) {
  const last = seq.get(id) + 5e6;
  const gap = { left_id: last - 500, right_id: last - 480, left_ts: null, right_ts: null, state: "open", reason: "mock" };
  const ranges = [
    [1, gap.left_id],
    [gap.right_id, last],
  ];
  return { instrument: id, trades: last - 19, ranges, gaps: [gap], complete: false, position: `mock:${seq.get(id)}` };
}

function book(id) {
  const now = Date.now();
  const level = priceAt(now, LEVELS[id]);
  const size = (at) => (Math.abs(Math.sin(now / 4e3 + at)) * 3 + 0.01).toFixed(5);
  const side = (sign) =>
    Array.from({ length: 10 }, (_, at) => [(level + sign * (0.05 + at * level * 2e-5)).toFixed(2), size(at * sign)]);
  return { instrument: id, state: bookState, ts_event: now, bids: side(-1), asks: side(1) };
}

function history(query) {
  const instrument = INSTRUMENTS.find(({ id }) => id === query.get("instrument"));
  const begin = Date.now() - 90 * 864e5;
  const end = query.has("start") ? begin + 6e4 : Number(query.get("end") ?? Date.now());
  const rows = candles(
    instrument,
    query.get("tf"),
    Number(query.get("limit") ?? 500),
    end,
    Date.now(),
    LEVELS[instrument.id],
  );
  return { candles: rows, position: "mock:1" };
}

function ticker(id) {
  const now = Date.now();
  const [last, past] = [priceAt(now, LEVELS[id]), priceAt(now - 864e5, LEVELS[id])];
  return {
    last: last.toFixed(2),
    change_pct_24h: ((last / past - 1) * 100).toFixed(3),
    high_24h: (last * 1.021).toFixed(2),
    low_24h: (last * 0.984).toFixed(2),
    volume_24h: "18234.55120",
    ts: now,
    data_age_ms: 120,
  };
}

server.on("upgrade", (request, socket) => {
  if (Date.now() < pausedUntil) return socket.destroy();
  const channels = new Set();
  const client = accept(
    request,
    socket,
    (text) => answer(client, channels, JSON.parse(text)),
    () => clients.delete(client),
  );
  client.channels = channels;
  clients.add(client);
  client.send({ type: "welcome", session: "mock", server_ts: Date.now(), heartbeat_s: 20 });
});

function answer(client, channels, message) {
  if (message.op === "ping") return client.send({ type: "pong", id: message.id, server_ts: Date.now() });
  if (message.op === "unsubscribe") {
    for (const { ch } of message.channels) channels.delete(ch);
    return;
  }
  const known = message.channels.filter(({ ch }) => LEVELS[ch.split("@")[1]] !== undefined);
  const errors = message.channels.filter(({ ch }) => !known.some((item) => item.ch === ch));
  client.send({
    type: "subscribed",
    id: message.id,
    channels: known.map(({ ch }) => ({ ch, pos: `mock:${seq.get(ch.split("@")[1])}`, recovered: false })),
    errors: errors.map(({ ch }) => ({ ch, code: 4404, msg: "unknown channel" })),
  });
  for (const { ch, snapshot } of known) {
    channels.add(ch);
    const [kind, id, tf] = ch.split("@");
    const instrument = INSTRUMENTS.find((item) => item.id === id);
    const now = Date.now();
    if (kind === "health") {
      client.send({ type: "snapshot", ch, ts: now, data: conditions(id, now) });
      continue;
    }
    if (kind === "book_top") {
      client.send({ type: "snapshot", ch, ts: now, data: [book(id)] });
      continue;
    }
    const data =
      kind === "candle"
        ? candles(instrument, tf, snapshot ?? 2, now, now, LEVELS[id])
        : Array.from({ length: snapshot ?? 100 }, (_, index) =>
            trade(id, seq.get(id) - snapshot + 1 + index, now - (snapshot - index) * 120),
          );
    client.send({ type: "snapshot", ch, pos: `mock:${seq.get(id)}`, data });
  }
}

function conditions(id, now) {
  const source = { kind: "stream_health", source: `mock:${id.split(":")[0]}`, state: "connected", ts: now - 9e5 };
  const gap = { kind: "gap_opened", instrument: id, left_id: 5000500, right_id: 5000520, state: "open" };
  return [
    { ...source, instrument: null },
    { ...source, instrument: id },
    { kind: "book_state", instrument: id, state: bookState },
    { ...gap, left_ts: now - 6e4, right_ts: now - 5e4, reason: "connection lost", attempts: 3 },
  ];
}

function trade(id, number, ts) {
  const up = Math.sin(number * 7.3) > 0;
  const price = priceAt(ts, LEVELS[id]) * (1 + (up ? 1 : -1) * 0.000002);
  return {
    instrument: id,
    seq: number,
    trade_id: number + 5e6,
    first_id: number + 5e6,
    count: 1,
    ts_event: ts - 9,
    ts_recv: ts,
    price: price.toFixed(2),
    size: (Math.abs(Math.sin(number * 3.7)) ** 4 * 2 + 0.0001).toFixed(5),
    side: up ? "buy" : "sell",
  };
}

function tick() {
  const now = Date.now();
  for (const instrument of INSTRUMENTS) {
    const { id } = instrument;
    const number = seq.get(id) + 1;
    seq.set(id, number);
    for (const client of clients) {
      for (const ch of client.channels) {
        const [kind, wanted, tf] = ch.split("@");
        if (wanted !== id) continue;
        if (kind === "trade")
          client.send({ type: "event", ch, pos: `mock:${number}`, ts: now, data: [trade(id, number, now)] });
        else if (kind === "book_top") client.send({ type: "update", ch, ts: now, data: [book(id)] });
        else if (kind === "candle") sendCandle(client, ch, instrument, tf, now);
      }
    }
  }
}

function sendCandle(client, ch, instrument, tf, now) {
  const length = lengthOf(tf);
  const open = Math.floor(now / length) * length;
  const level = LEVELS[instrument.id];
  const closed = candle(instrument, tf, open - length, now, level);
  const frames = [{ type: "update", ch, ts: now, data: [candle(instrument, tf, open, now, level)] }];
  if (now - open < 400)
    frames.unshift({
      type: "event",
      ch,
      pos: `mock:${seq.get(instrument.id)}`,
      kind: "closed",
      ts: now,
      data: [closed],
    });
  client.send(frames.length === 1 ? frames[0] : frames);
}

setInterval(tick, Number(process.env.MOCK_TICK_MS ?? 80));
server.listen(Number(process.argv[2] ?? 0), "127.0.0.1", () =>
  console.log(`http://127.0.0.1:${server.address().port}/`),
);
