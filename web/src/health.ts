/** How alive the live data is: state of the connection, median exchange→browser latency, message rate. */

import type { Phase } from "./feed";
import { Conditions } from "./conditions";
import type { Condition } from "./model";

export type ConnectionState = "live" | "stale" | "reconnecting" | "offline";

export interface Connection {
  state: ConnectionState;
  /** Median of the newest trades, ms; null before the first. */
  latency: number | null;
  /** Frames per second over the last five seconds. */
  rate: number;
  detail: string;
}

/** Older news is history that is being told, and no latency. */
export const A_MINUTE = 60_000;
const SAMPLES = 200;
const GAPS = 64;
const RATE_WINDOW_MS = 5_000;
/** Quiet of less than this is never called stale, whatever the market's pace. */
const QUIET_MS = 10_000;
const OFFLINE_AFTER_MS = 15_000;

export class Health {
  /** What the server says of the streams behind the data. */
  readonly known = new Conditions();
  #phase: Phase = "connecting";
  #detail = "";
  #downSince: number;
  #frameAt = 0;
  #clockOffset = 0;
  #latencies: number[] = [];
  #gaps: number[] = [];
  #frames: { at: number; count: number }[] = [];

  constructor(now: number) {
    this.#downSince = now;
  }

  phase(phase: Phase, detail: string, now: number): void {
    if (this.#phase === "open" && phase !== "open") this.#downSince = now;
    if (phase === "open") this.#frameAt = now;
    this.#phase = phase;
    if (phase !== "connecting") this.#detail = detail;
  }

  clock(offset: number): void {
    this.#clockOffset = offset;
  }

  /** A data frame arrived; `events` are the exchange times (ms) of its live trades. */
  frame(now: number, events: readonly number[]): void {
    if (this.#frameAt > 0) this.#gaps = [...this.#gaps.slice(1 - GAPS), now - this.#frameAt];
    this.#frameAt = now;
    const second = this.#frames.at(-1);
    if (second !== undefined && now - second.at < 250) second.count += 1;
    else this.#frames.push({ at: now, count: 1 });
    for (const at of events) this.#latencies.push(Math.max(0, now + this.#clockOffset - at));
    if (this.#latencies.length > SAMPLES) this.#latencies = this.#latencies.slice(-SAMPLES);
  }

  /** All that is wrong comes anew. */
  recover(): void {
    this.known.clear();
  }

  /** What the server knows of the streams the open instrument comes from. */
  conditions(rows: readonly Condition[]): void {
    this.known.apply(rows);
  }

  /** Another instrument has another pace. */
  reset(now: number): void {
    this.#gaps = [];
    this.#latencies = [];
    this.known.clear();
    this.#frameAt = now;
  }

  read(now: number, online: boolean): Connection {
    this.#frames = this.#frames.filter(({ at }) => now - at < RATE_WINDOW_MS);
    const count = this.#frames.reduce((sum, frame) => sum + frame.count, 0);
    return {
      state: this.#state(now, online),
      latency: median(this.#latencies),
      rate: Math.round((count * 1000) / RATE_WINDOW_MS),
      detail: this.#trouble ?? this.#detail,
    };
  }

  #state(now: number, online: boolean): ConnectionState {
    if (this.#trouble !== undefined) return "stale";
    if (this.#phase === "open") return now - this.#frameAt > this.#patience ? "stale" : "live";
    if (!online || this.#phase === "refused" || now - this.#downSince > OFFLINE_AFTER_MS) return "offline";
    return "reconnecting";
  }

  /** Why nothing new can come although the server is there. */
  get #trouble(): string | undefined {
    return this.#phase === "open" ? this.known.trouble : undefined;
  }

  /** Twice the longest recent silence: a quiet market is not a broken one. */
  get #patience(): number {
    return Math.max(QUIET_MS, 2 * Math.max(0, ...this.#gaps));
  }
}

function median(values: readonly number[]): number | null {
  if (values.length === 0) return null;
  const sorted = [...values].sort((a, b) => a - b);
  return Math.round(sorted[sorted.length >> 1] ?? 0);
}
