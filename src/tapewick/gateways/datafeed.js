// A datafeed for charting libraries that take one (the JS API interface of TradingView's libraries):
// history from /udf, live bars from /v1/ws. No dependencies; it holds no code of any charting library.
//
//   import { Datafeed } from "http://127.0.0.1:8080/docs/datafeed.js";
//   const datafeed = new Datafeed("http://127.0.0.1:8080", { onReset: () => chart.resetData() });
//
// The newest bar and later ones are told by onTick. When an older bar changed, or the server could not
// say what was missed, the library's cache is wrong: onResetCacheNeeded is called, then onReset, at most
// once a second for each listener. The option token is for servers that want one.

const RETRY_MS = 1000;
const RETRY_CAP_MS = 30000;
const RESET_MS = 1000; // a reset makes the library read its history again: many at once tell no more than one
const REFUSED = 4401; // the close code for a token that the server does not know: asking again is in vain
const SILENCE_MS = 45000; // the server pings every 20 s; after this long without a frame the link is dead
const KEPT = 8; // newest bars remembered per subscription, to tell a change from a repetition

const TIMEFRAMES = {
  "1S": "1s", "1": "1m", "3": "3m", "5": "5m", "15": "15m", "30": "30m", "45": "45m", "60": "1h", "120": "2h",
  "180": "3h", "240": "4h", "360": "6h", "480": "8h", "720": "12h", "1D": "1d", "3D": "3d", "1W": "1w", "1M": "1M",
  S: "1s", D: "1d", W: "1w", M: "1M",
};

export class Datafeed {
  constructor(url, { token = "", onReset = () => {}, onStatus = () => {} } = {}) {
    this.url = url.replace(/\/+$/, "");
    this.token = token;
    this.onReset = onReset;
    this.onStatus = onStatus;
    this.listeners = new Map(); // listenerGuid -> Listener
    this.positions = new Map(); // channel -> position to resume from
    this.socket = null;
    this.attempts = 0;
    this.closed = false;
    this.timer = null;
  }

  // -- the interface ------------------------------------------------------------------------

  onReady(callback) {
    this.ask("/udf/config").then(callback, (error) => this.onStatus(String(error)));
  }

  searchSymbols(query, exchange, type, onResult) {
    this.ask("/udf/search", { query, exchange, type, limit: 30 }).then(onResult, () => onResult([]));
  }

  resolveSymbol(name, onResolve, onError) {
    this.ask("/udf/symbols", { symbol: name }).then(onResolve, (error) => onError(error.message));
  }

  getBars(symbolInfo, resolution, period, onResult, onError) {
    const { from, to, countBack } = period;
    const asked = { symbol: symbolInfo.ticker, resolution, from: Math.max(0, from), to };
    if (countBack > 0) asked.countback = countBack;
    this.ask("/udf/history", asked).then(
      (told) => {
        if (told.s === "no_data") onResult([], { noData: true, nextTime: told.nextTime && told.nextTime * 1000 });
        else onResult(bars(told), { noData: false });
      },
      (error) => onError(error.message),
    );
  }

  subscribeBars(symbolInfo, resolution, onTick, listenerGuid, onResetCacheNeeded) {
    const tf = TIMEFRAMES[resolution];
    if (!tf) return;
    const channel = `candle@${symbolInfo.ticker}@${tf}`;
    const listener = { channel, onTick, onResetCacheNeeded, newest: 0, recent: new Map(), told: -Infinity, resetting: 0 };
    this.listeners.set(listenerGuid, listener);
    if (this.socket && this.socket.readyState === 1) this.subscribe(channel);
    else this.connect();
  }

  unsubscribeBars(listenerGuid) {
    const listener = this.listeners.get(listenerGuid);
    this.listeners.delete(listenerGuid);
    if (listener) clearTimeout(listener.resetting);
    if (!listener || this.of(listener.channel).length) return;
    this.positions.delete(listener.channel);
    this.send({ op: "unsubscribe", channels: [{ ch: listener.channel }] });
    if (!this.listeners.size) this.disconnect();
  }

  getServerTime(callback) {
    this.ask("/udf/time").then(callback, () => {});
  }

  // -- history ------------------------------------------------------------------------------

  async ask(path, params = {}) {
    const given = Object.entries(params).filter(([, value]) => value !== undefined && value !== "");
    const headers = this.token ? { authorization: `Bearer ${this.token}` } : {};
    const answer = await fetch(`${this.url}${path}?${new URLSearchParams(given)}`, { headers });
    const told = await answer.json();
    if (!answer.ok || told.s === "error") throw new Error(told.errmsg || told.detail || `HTTP ${answer.status}`);
    return told;
  }

  // -- live bars ----------------------------------------------------------------------------

  of(channel) {
    return [...this.listeners.values()].filter((listener) => listener.channel === channel);
  }

  connect() {
    if (this.socket || this.closed || this.timer) return;
    const protocols = ["tapewick.v1.json", ...(this.token ? [`tapewick.key.${this.token}`] : [])];
    const socket = new WebSocket(`${this.url.replace(/^http/, "ws")}/v1/ws`, protocols);
    this.socket = socket;
    socket.onopen = () => {
      this.attempts = 0;
      this.onStatus("connected");
      for (const channel of new Set([...this.listeners.values()].map((one) => one.channel))) this.subscribe(channel);
    };
    socket.onmessage = ({ data }) => {
      this.heard();
      for (const frame of [JSON.parse(data)].flat()) this.take(frame);
    };
    socket.onclose = ({ code }) => this.lost(socket, code);
    this.heard();
  }

  heard() {
    clearTimeout(this.silence);
    this.silence = setTimeout(() => {
      this.send({ op: "ping" });
      this.silence = setTimeout(() => this.socket && this.socket.close(), RETRY_MS * 5);
    }, SILENCE_MS);
  }

  lost(socket, code) {
    if (this.socket !== socket) return;
    this.socket = null;
    clearTimeout(this.silence);
    if (this.closed || !this.listeners.size) return;
    this.onStatus(code === REFUSED ? "unauthorized" : "disconnected");
    if (code === REFUSED) return;
    const wait = Math.min(RETRY_CAP_MS, RETRY_MS * 2 ** this.attempts++) * (0.5 + Math.random() / 2);
    this.timer = setTimeout(() => {
      this.timer = null;
      this.connect();
    }, wait);
  }

  disconnect() {
    clearTimeout(this.timer);
    clearTimeout(this.silence);
    this.timer = null;
    const socket = this.socket;
    this.socket = null;
    if (socket) socket.close();
  }

  close() {
    this.closed = true;
    for (const listener of this.listeners.values()) clearTimeout(listener.resetting);
    this.listeners.clear();
    this.disconnect();
  }

  send(message) {
    if (this.socket && this.socket.readyState === 1) this.socket.send(JSON.stringify(message));
  }

  subscribe(channel) {
    const since = this.positions.get(channel);
    const wanted = since ? { ch: channel, since } : { ch: channel, snapshot: 2 };
    this.send({ op: "subscribe", id: 1, channels: [wanted] });
  }

  take(frame) {
    if (frame.type === "subscribed") {
      for (const one of frame.channels) {
        if (this.positions.has(one.ch) && !one.recovered) this.of(one.ch).forEach((listener) => this.reset(listener));
      }
      for (const refused of frame.errors || []) this.onStatus(refused.msg);
    } else if (frame.type === "gap") {
      this.of(frame.ch).forEach((listener) => this.reset(listener));
    } else if (frame.type === "snapshot" || frame.type === "event" || frame.type === "update") {
      const last = frame.data.length - 1;
      frame.data.forEach((row, i) => {
        const told = frame.type !== "snapshot" || i === last; // the chart has the bars before from its history
        this.of(frame.ch).forEach((listener) => this.tell(listener, row, frame.type, told));
      });
    }
    if (frame.pos && frame.type !== "update") this.positions.set(frame.ch, frame.pos);
  }

  tell(listener, row, type, told) {
    if (row.open === null) return;
    const bar = {
      time: row.open_time, open: +row.open, high: +row.high, low: +row.low, close: +row.close, volume: +row.volume,
    };
    const text = JSON.stringify(bar);
    const known = listener.recent.get(bar.time);
    if (known === text) return;
    listener.recent.set(bar.time, text);
    for (const time of listener.recent.keys()) {
      if (listener.recent.size > KEPT && time !== bar.time) listener.recent.delete(time);
    }
    if (!told) return;
    if (bar.time >= listener.newest) {
      listener.newest = bar.time;
      queueMicrotask(() => listener.onTick(bar));
    } else if (type === "event") {
      this.reset(listener);
    }
  }

  reset(listener) {
    if (listener.resetting) return; // the one that is due tells of this change too
    listener.resetting = setTimeout(() => {
      listener.resetting = 0;
      listener.told = performance.now();
      listener.onResetCacheNeeded();
      this.onReset(listener.channel);
    }, Math.max(0, listener.told + RESET_MS - performance.now()));
  }
}

function bars({ t, o, h, l, c, v }) {
  return t.map((time, i) => ({ time: time * 1000, open: o[i], high: h[i], low: l[i], close: c[i], volume: v[i] }));
}
