/** Mirrors the state on the root element, for tests and for styles, and in the title of the tab. */

import type { Dashboard, State } from "./dashboard";
import { grouped } from "./format";

const TITLE_MS = 1_000;

export function reflect(dashboard: Dashboard, root: HTMLElement): void {
  const { store } = dashboard;
  let titledAt = 0;
  const write = (): void => {
    const state = store.get();
    for (const [name, text] of Object.entries(attributes(state))) {
      if (root.dataset[name] !== text) root.dataset[name] = text;
    }
    if (document.documentElement.dataset.theme !== state.theme) document.documentElement.dataset.theme = state.theme;
    if (Date.now() - titledAt < TITLE_MS) return;
    titledAt = Date.now();
    document.title = titleOf(state);
  };
  write();
  store.subscribe(write);
}

function attributes(state: State): Record<string, string> {
  return {
    instrument: state.instrument ?? "",
    tf: state.tf,
    lastOpenTime: String(state.last?.open_time ?? ""),
    lastRev: String(state.last?.rev ?? ""),
    lastState: state.last?.state ?? "",
    bars: String(state.bars),
    updates: String(state.updates),
    connection: state.connection.state,
  };
}

function titleOf({ lastTrade, last, instrument }: State): string {
  const price = lastTrade?.price ?? last?.close;
  return instrument === null || price == null ? "tapewick" : `${grouped(price)} ${instrument} · tapewick`;
}
