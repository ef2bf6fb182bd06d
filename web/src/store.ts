/** A plain external store: writes are immediate, listeners hear of them at most once per animation frame. */

import { useSyncExternalStore } from "react";

type Schedule = (flush: () => void) => unknown;

export class Store<S extends object> {
  #state: S;
  #dirty = false;
  readonly #listeners = new Set<() => void>();
  readonly #schedule: Schedule;

  constructor(initial: S, schedule: Schedule = (flush) => requestAnimationFrame(flush)) {
    this.#state = initial;
    this.#schedule = schedule;
  }

  get = (): S => this.#state;

  /** Merges a patch; equal values cause no flush. */
  set(patch: Partial<S>): void {
    const keys = Object.keys(patch) as (keyof S)[];
    if (keys.every((key) => Object.is(this.#state[key], patch[key]))) return;
    this.#state = { ...this.#state, ...patch };
    this.touch();
  }

  /** Asks for a flush without a change of state (data kept beside the store has changed). */
  touch(): void {
    if (this.#dirty) return;
    this.#dirty = true;
    this.#schedule(() => {
      this.#dirty = false;
      for (const listener of this.#listeners) listener();
    });
  }

  subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };
}

/** One value of the store as React state; the component renders again only when it changes. */
export function useStore<S extends object, T>(store: Store<S>, select: (state: S) => T): T {
  return useSyncExternalStore(store.subscribe, () => select(store.get()));
}
