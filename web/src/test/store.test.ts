import { expect, it, vi } from "vitest";
import { Store } from "../store";

function rig(): { store: Store<{ a: number; b: number }>; frame: () => void; heard: ReturnType<typeof vi.fn> } {
  const waiting: (() => void)[] = [];
  const store = new Store({ a: 0, b: 0 }, (flush) => waiting.push(flush));
  const heard = vi.fn();
  store.subscribe(heard);
  return { store, heard, frame: () => waiting.splice(0).forEach((flush) => void flush()) };
}

it("tells listeners once per frame, however many writes there were", () => {
  const { store, heard, frame } = rig();
  for (let value = 1; value <= 1000; value += 1) store.set({ a: value });
  expect(store.get().a).toBe(1000);
  expect(heard).not.toHaveBeenCalled();
  frame();
  expect(heard).toHaveBeenCalledTimes(1);
  store.set({ a: 0 });
  frame();
  expect(heard).toHaveBeenCalledTimes(2);
});

it("is quiet when nothing changed, and flushes when asked", () => {
  const { store, heard, frame } = rig();
  const before = store.get();
  store.set({ a: 0 });
  frame();
  expect(heard).not.toHaveBeenCalled();
  expect(store.get()).toBe(before);
  store.touch();
  store.touch();
  frame();
  expect(heard).toHaveBeenCalledTimes(1);
});

it("stops telling a listener that has left", () => {
  const { store, frame } = rig();
  const late = vi.fn();
  store.subscribe(late)();
  store.set({ b: 1 });
  frame();
  expect(late).not.toHaveBeenCalled();
});
