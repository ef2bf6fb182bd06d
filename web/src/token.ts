/** The token the server asks for, kept until the tab is closed and nowhere else. */

const KEY = "tapewick.token";
/** What every token starts with where it travels as a WebSocket subprotocol. */
const SUBPROTOCOL = "tapewick.key.";

export function readToken(storage: Storage = sessionStorage): string {
  try {
    return storage.getItem(KEY) ?? "";
  } catch {
    return ""; // blocked storage: it is asked for again
  }
}

export function writeToken(token: string, storage: Storage = sessionStorage): void {
  try {
    storage.setItem(KEY, token);
  } catch {
    return; // blocked storage: the page that asked goes on asking
  }
}

/** How a browser's WebSocket carries it: headers are out of its reach. */
export function subprotocols(token: string): string[] {
  return token === "" ? [] : ["tapewick.v1.json", SUBPROTOCOL + token];
}
