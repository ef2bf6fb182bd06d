/** The frames of `/v1/ws` that the page reads. Several may arrive joined in one JSON array. */

import type { Book, Candle, Condition, Trade } from "./model";

export interface Subscribed {
  type: "subscribed";
  id?: number | string;
  channels?: { ch: string; pos?: string; recovered?: boolean }[];
  errors?: { ch: string; code: number | string; msg: string }[];
}

export type DataFrame =
  | { type: "snapshot"; ch: string; pos: string; data: (Candle | Trade)[] }
  | { type: "event"; ch: string; pos: string; from?: string; kind?: string; late?: boolean; data: (Candle | Trade)[] }
  | { type: "update"; ch: string; data: Candle[] }
  | { type: "gap" | "skip"; ch: string; from?: string; to?: string; count?: number; reason?: string };

/** What is known of the streams behind the data, without positions: all of it, then each change. */
export interface HealthFrame {
  type: "snapshot" | "event";
  ch: `health@${string}`;
  data: Condition[];
}

/** The best levels of a book, whole each time; no row while nothing is known of one. */
export interface BookFrame {
  type: "snapshot" | "update";
  ch: `book_top@${string}`;
  data: Book[];
}

export type ServerFrame =
  | Subscribed
  | DataFrame
  | HealthFrame
  | BookFrame
  | { type: "welcome"; server_ts?: number }
  | { type: "pong"; id?: number | string; server_ts?: number }
  | { type: "error"; id?: number | string; code?: number | string; msg?: string }
  | { type: "notice" | "unsubscribed" };

/** The frames of one WebSocket message; an empty list when it is not what the protocol says. */
export function parseFrames(text: string): ServerFrame[] {
  try {
    const value: unknown = JSON.parse(text);
    const list = Array.isArray(value) ? value : [value];
    return list.filter((item) => typeof item === "object" && item !== null && "type" in item) as ServerFrame[];
  } catch {
    return []; // counted by the caller as a bad message
  }
}

export function isHealth(frame: DataFrame | HealthFrame | BookFrame): frame is HealthFrame {
  return frame.ch.startsWith("health@");
}

export function isBook(frame: DataFrame | HealthFrame | BookFrame): frame is BookFrame {
  return frame.ch.startsWith("book_top@");
}

/** Frames whose offsets count every record, so that a jump is a hole. */
export function isContiguous(ch: string): boolean {
  return ch.startsWith("trade@") || ch.startsWith("round@");
}
