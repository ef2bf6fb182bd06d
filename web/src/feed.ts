/**
 * One WebSocket that outlives its connections: it reconnects with jitter, resumes every channel from the
 * last position seen, drops duplicates and asks again for a hole in a contiguous channel.
 */

import {
  type BookFrame,
  type DataFrame,
  type HealthFrame,
  isBook,
  isContiguous,
  isHealth,
  parseFrames,
  type ServerFrame,
  type Subscribed,
} from "./frames";
import { epochOf, offsetOf, type Trade } from "./model";
import { readToken, subprotocols } from "./token";

export interface Channel {
  ch: string;
  snapshot?: number;
  levels?: number;
  max_rate?: number;
}

export type Phase = "connecting" | "open" | "waiting" | "refused";

export interface FeedOptions {
  url: string;
  /** Data in order, each contiguous record once. */
  onData: (frame: DataFrame) => void;
  onPhase: (phase: Phase, detail: string) => void;
  onHealth?: (frame: HealthFrame) => void;
  onBook?: (frame: BookFrame) => void;
  /** The server wants a token, or another one. */
  onUnauthorized?: () => void;
  /** A channel the server refused. */
  onRefused?: (ch: string, message: string) => void;
  /** Estimated server time minus browser time, in ms. */
  onClock?: (offset: number) => void;
  socket?: (url: string) => WebSocket;
  random?: () => number;
  now?: () => number;
}

const BACKOFF_MS = 400;
const BACKOFF_CAP_MS = 10_000;
const PING_MS = 15_000;
/** Without any frame for this long the connection is dead, whatever the browser believes. */
const DEAD_MS = 45_000;
const POLICY_VIOLATION = 1008;
const UNAUTHORIZED = 4401;

export class Feed {
  readonly #options: FeedOptions;
  #socket: WebSocket | null = null;
  #channels = new Map<string, Channel>();
  readonly #positions = new Map<string, string>();
  /** Channel → id of the subscribe request that is to heal its hole. */
  readonly #healing = new Map<string, number>();
  readonly #pings = new Map<number, number>();
  #nextId = 1;
  #attempts = 0;
  #heardAt = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #pulse: ReturnType<typeof setInterval> | undefined;
  #stopped = true;

  constructor(options: FeedOptions) {
    this.#options = options;
  }

  start(): void {
    this.#stopped = false;
    this.#pulse = setInterval(() => this.#beat(), PING_MS);
    this.#connect();
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
    clearInterval(this.#pulse);
    this.#socket?.close(1000);
  }

  /** Replaces the wanted channels; those that stay keep their position and see no seam. */
  setChannels(channels: Channel[]): void {
    const wanted = new Map(channels.map((channel) => [channel.ch, channel]));
    const gone = [...this.#channels.keys()].filter((ch) => !wanted.has(ch));
    const fresh = channels.filter(({ ch }) => !this.#channels.has(ch));
    this.#channels = wanted;
    for (const ch of gone) this.#forget(ch);
    if (!this.#isOpen) return;
    if (gone.length > 0) this.#send({ op: "unsubscribe", channels: gone.map((ch) => ({ ch })) });
    if (fresh.length > 0) this.#subscribe(fresh);
  }

  /** The last position of a channel: what a resume would send. */
  position(ch: string): string | undefined {
    return this.#positions.get(ch);
  }

  /** Connects at once instead of waiting out the back-off (the browser is online again). */
  retryNow(): void {
    if (this.#stopped || this.#socket !== null) return;
    clearTimeout(this.#timer);
    this.#connect();
  }

  get #isOpen(): boolean {
    return this.#socket?.readyState === 1;
  }

  get #now(): number {
    return (this.#options.now ?? Date.now)();
  }

  #connect(): void {
    this.#options.onPhase("connecting", "");
    const socket = (this.#options.socket ?? ((url) => new WebSocket(url, subprotocols(readToken()))))(this.#options.url);
    this.#socket = socket;
    this.#heardAt = this.#now;
    socket.onopen = () => this.#opened();
    socket.onmessage = (message: MessageEvent<unknown>) => this.#message(message.data);
    socket.onclose = (close) => {
      if (this.#socket === socket) this.#closed(close.code, close.reason);
    };
  }

  #opened(): void {
    this.#healing.clear();
    this.#pings.clear();
    this.#options.onPhase("open", "");
    if (this.#channels.size > 0) this.#subscribe([...this.#channels.values()]);
    this.#ping();
  }

  #closed(code: number, reason: string): void {
    this.#socket = null;
    if (this.#stopped) return;
    if (code === UNAUTHORIZED) this.#options.onUnauthorized?.();
    if (code === POLICY_VIOLATION || (code >= 4400 && code < 5000)) {
      this.#options.onPhase("refused", reason || `the server closed with ${code}`);
      return;
    }
    const ceiling = Math.min(BACKOFF_CAP_MS, BACKOFF_MS * 2 ** this.#attempts++);
    const delay = 50 + (this.#options.random ?? Math.random)() * ceiling;
    this.#options.onPhase("waiting", reason);
    this.#timer = setTimeout(() => this.#connect(), delay);
  }

  #beat(): void {
    if (!this.#isOpen) return;
    if (this.#now - this.#heardAt > DEAD_MS) this.#abandon();
    else this.#ping();
  }

  /** Lets go of a dead connection without waiting for its closing handshake, which may never come. */
  #abandon(): void {
    const socket = this.#socket;
    this.#closed(4000, "no frame for 45 s");
    socket?.close();
  }

  #ping(): void {
    const id = this.#nextId++;
    this.#pings.set(id, this.#now);
    this.#send({ op: "ping", id });
  }

  #subscribe(channels: Channel[]): number {
    const id = this.#nextId++;
    const list = channels.map((channel) => {
      const since = this.#positions.get(channel.ch);
      return since === undefined ? channel : { ...channel, since };
    });
    this.#send({ op: "subscribe", id, channels: list });
    return id;
  }

  #send(message: object): void {
    this.#socket?.send(JSON.stringify(message));
  }

  #forget(ch: string): void {
    this.#positions.delete(ch);
    this.#healing.delete(ch);
  }

  #message(data: unknown): void {
    this.#heardAt = this.#now;
    for (const frame of parseFrames(String(data))) this.#frame(frame);
  }

  #frame(frame: ServerFrame): void {
    switch (frame.type) {
      case "welcome":
        this.#attempts = 0;
        return;
      case "pong":
        return this.#pong(Number(frame.id), frame.server_ts);
      case "subscribed":
        return this.#subscribed(frame);
      case "error":
        return this.#failed(frame.msg ?? String(frame.code));
      case "snapshot":
      case "event":
      case "update":
      case "gap":
      case "skip":
        if (!this.#channels.has(frame.ch)) return;
        if (isHealth(frame)) this.#options.onHealth?.(frame);
        else if (isBook(frame)) this.#options.onBook?.(frame);
        else this.#data(frame);
    }
  }

  /** The server's clock as a round trip shows it, so that a wrong browser clock does not look like latency. */
  #pong(id: number, serverTime: number | undefined): void {
    const sentAt = this.#pings.get(id);
    this.#pings.delete(id);
    if (sentAt !== undefined && serverTime) this.#options.onClock?.(serverTime - (sentAt + this.#now) / 2);
  }

  #subscribed(frame: Subscribed): void {
    for (const { ch, pos, recovered } of frame.channels ?? []) {
      if (this.#healing.get(ch) === frame.id) this.#healing.delete(ch);
      if (recovered === true) continue; // the missing events follow the position we sent
      if (pos) this.#positions.set(ch, pos);
      else this.#positions.delete(ch);
    }
    for (const { ch, msg } of frame.errors ?? []) this.#options.onRefused?.(ch, msg);
  }

  /** A whole request was refused: none of the channels that still wait for their first position will come. */
  #failed(message: string): void {
    for (const ch of this.#channels.keys()) {
      if (!this.#positions.has(ch)) this.#options.onRefused?.(ch, message);
    }
  }

  #data(frame: DataFrame): void {
    if (frame.type === "snapshot") {
      this.#healing.delete(frame.ch);
      this.#positions.set(frame.ch, frame.pos);
    } else if (this.#healing.has(frame.ch)) {
      return; // what lies beyond the hole comes again, in order
    } else if (frame.type === "skip" || frame.type === "gap") {
      if (frame.to !== undefined && frame.type === "skip") this.#positions.set(frame.ch, frame.to);
    } else if (frame.type === "event") {
      return this.#event(frame);
    }
    this.#options.onData(frame);
  }

  #event(frame: Extract<DataFrame, { type: "event" }>): void {
    const held = this.#positions.get(frame.ch);
    if (held !== undefined && epochOf(held) !== epochOf(frame.pos)) return this.#restart(frame.ch);
    const seen = offsetOf(held);
    if (!isContiguous(frame.ch)) {
      if (offsetOf(frame.pos) > seen) this.#positions.set(frame.ch, frame.pos);
      return this.#options.onData(frame);
    }
    const rows = (frame.data as Trade[]).filter((row) => row.seq > seen);
    const first = rows[0];
    if (first === undefined) return; // a duplicate
    if (held !== undefined && first.seq !== seen + 1) return this.#heal(frame.ch);
    this.#positions.set(frame.ch, frame.pos);
    this.#options.onData({ ...frame, data: rows });
  }

  #heal(ch: string): void {
    const channel = this.#channels.get(ch);
    if (channel === undefined) return;
    this.#send({ op: "unsubscribe", channels: [{ ch }] });
    this.#healing.set(ch, this.#subscribe([channel]));
  }

  /** The tape has another identity now: positions of the old one mean nothing. */
  #restart(ch: string): void {
    this.#positions.delete(ch);
    this.#heal(ch);
  }
}
