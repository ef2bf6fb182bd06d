/** REST calls of the page: same origin, no retries of their own (the caller decides what a failure means). */

import type { Candle, Coverage, Instrument, Status, Ticker } from "./model";
import { readToken } from "./token";

export const UNAUTHORIZED = 401;

export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

export interface Api {
  instruments(): Promise<Instrument[]>;
  /** Up to `limit` candles that open before `end` (ms), ascending. */
  candles(instrument: string, tf: string, limit: number, end?: number): Promise<Candle[]>;
  ticker(instrument: string): Promise<Ticker>;
  /** When the oldest candle of a minute opens (ms); null while there is none. */
  begin(instrument: string): Promise<number | null>;
  coverage(instrument: string): Promise<Coverage>;
  status(): Promise<Status>;
}

export class HttpApi implements Api {
  constructor(readonly base: string = "/v1") {}

  async instruments(): Promise<Instrument[]> {
    return (await this.#get<{ instruments: Instrument[] }>("/instruments")).instruments;
  }

  async candles(instrument: string, tf: string, limit: number, end?: number): Promise<Candle[]> {
    const query = new URLSearchParams({ instrument, tf, limit: String(limit) });
    if (end !== undefined) query.set("end", String(end));
    return (await this.#get<{ candles: Candle[] }>(`/candles?${query}`)).candles;
  }

  async ticker(instrument: string): Promise<Ticker> {
    return await this.#get<Ticker>(`/ticker/${encodeURIComponent(instrument)}`);
  }

  async begin(instrument: string): Promise<number | null> {
    const query = new URLSearchParams({ instrument, tf: "1m", start: "0", limit: "1" });
    return (await this.#get<{ candles: Candle[] }>(`/candles?${query}`)).candles[0]?.open_time ?? null;
  }

  async coverage(instrument: string): Promise<Coverage> {
    return await this.#get<Coverage>(`/coverage/${encodeURIComponent(instrument)}`);
  }

  async status(): Promise<Status> {
    return await this.#get<Status>("/status");
  }

  async #get<T>(path: string): Promise<T> {
    const token = readToken();
    const headers = { accept: "application/json", ...(token === "" ? {} : { authorization: `Bearer ${token}` }) };
    const answer = await fetch(this.base + path, { headers });
    if (!answer.ok) throw new ApiError(answer.status, await problemOf(answer));
    return (await answer.json()) as T;
  }
}

async function problemOf(answer: Response): Promise<string> {
  const body = (await answer.json().catch(() => ({}))) as Record<string, unknown>;
  const text = body.detail ?? body.title ?? body.msg;
  return typeof text === "string" ? text : `the server answered ${answer.status}`;
}
