/** The address of a view: `#binance:BTCUSDT/1h?theme=dark&tz=local`. Ids may contain `/`, so the frame is the last part. */

import { isTimeframe } from "./timeframe";

export interface Address {
  instrument: string | null;
  tf: string | null;
  theme: "dark" | "light" | null;
  tz: "utc" | "local" | null;
}

export function parseAddress(hash: string): Address {
  const text = hash.replace(/^#/, "");
  const mark = text.indexOf("?");
  const path = decode(mark < 0 ? text : text.slice(0, mark));
  const query = new URLSearchParams(mark < 0 ? "" : text.slice(mark + 1));
  const theme = query.get("theme");
  const tz = query.get("tz");
  return {
    ...splitPath(path),
    theme: theme === "dark" || theme === "light" ? theme : null,
    tz: tz === "utc" || tz === "local" ? tz : null,
  };
}

export function formatAddress(address: Address): string {
  if (address.instrument === null) return "";
  const id = encodeURI(address.instrument).replaceAll("?", "%3F").replaceAll("#", "%23");
  const query = new URLSearchParams();
  if (address.theme !== null) query.set("theme", address.theme);
  if (address.tz !== null) query.set("tz", address.tz);
  const tail = query.size > 0 ? `?${query}` : "";
  return `#${id}${address.tf === null ? "" : `/${address.tf}`}${tail}`;
}

function splitPath(path: string): { instrument: string | null; tf: string | null } {
  const slash = path.lastIndexOf("/");
  const tail = path.slice(slash + 1);
  if (slash > 0 && isTimeframe(tail)) return { instrument: path.slice(0, slash), tf: tail };
  return { instrument: path === "" ? null : path, tf: null };
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // a lone % typed by hand: take it as it stands
  }
}
