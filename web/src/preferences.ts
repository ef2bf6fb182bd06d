/** Choices that outlive a visit: theme, time zone, the panels beside the chart. */

import type { Zone } from "./format";

export type Theme = "dark" | "light";

const KEY = "tapewick.preferences";

export interface Preferences {
  /** null: follow the operating system. */
  theme: Theme | null;
  zone: Zone;
  tape: boolean;
  book: boolean;
}

const DEFAULTS: Preferences = { theme: null, zone: "utc", tape: true, book: true };

export function readPreferences(storage: Storage = localStorage): Preferences {
  try {
    return { ...DEFAULTS, ...(JSON.parse(storage.getItem(KEY) ?? "{}") as Partial<Preferences>) };
  } catch {
    return DEFAULTS; // unreadable or blocked storage: the page works, it only forgets
  }
}

export function writePreferences(preferences: Preferences, storage: Storage = localStorage): void {
  try {
    storage.setItem(KEY, JSON.stringify(preferences));
  } catch {
    return; // blocked or full storage: the choice holds until the page is closed
  }
}

export function systemTheme(): Theme {
  return matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark";
}
