// @vitest-environment jsdom
import { act } from "react";
import { createRoot, type Root } from "react-dom/client";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import type { Api } from "../api";
import { DashboardContext } from "../components/context";
import { Dialogs } from "../components/Dialogs";
import { FrameBar } from "../components/FrameBar";
import { Header } from "../components/Header";
import { Legend } from "../components/Legend";
import { Tape } from "../components/Tape";
import { Dashboard } from "../dashboard";
import { reflect } from "../reflect";
import { candle, HandSocket, instrument, trade } from "./rows";

const INSTRUMENTS = [
  instrument("sim:AB", { simulated: true, base: "A", quote: "B" }),
  instrument("binance:CD", { base: "C", quote: "D" }),
];

let root: Root;
let page: HTMLElement;
let dashboard: Dashboard;
let socket: HandSocket;
/** Subprotocols of the newest connection. */
let offered: string[];

/** Lets promises settle and one animation frame pass. */
async function frame(): Promise<void> {
  await act(async () => {
    await new Promise((done) => requestAnimationFrame(done));
    await new Promise((done) => requestAnimationFrame(done));
  });
}

function text(selector: string): string {
  return page.querySelector(selector)?.textContent ?? "";
}

/** Does something that changes the address, and waits until the page has followed. */
async function navigating(action: () => void): Promise<void> {
  await act(async () => {
    const followed = new Promise<void>((done) => addEventListener("hashchange", () => done(), { once: true }));
    action();
    await followed;
  });
  await frame();
}

beforeEach(async () => {
  vi.stubGlobal("IS_REACT_ACT_ENVIRONMENT", true);
  vi.stubGlobal("matchMedia", () => ({ matches: false, addEventListener: () => undefined }));
  vi.stubGlobal(
    "WebSocket",
    class extends HandSocket {
      constructor(url: string, protocols: string[]) {
        super(url);
        offered = protocols;
        socket = this;
      }
    },
  );
  localStorage.clear();
  sessionStorage.clear();
  location.hash = "";
  const api = {
    instruments: async () => INSTRUMENTS,
    candles: async () => [],
    ticker: async () => ({ last: "1.75", change_pct_24h: "-1.5", high_24h: "2", low_24h: "1", volume_24h: "1500" }),
  } satisfies Api;
  page = document.body.appendChild(document.createElement("div"));
  dashboard = new Dashboard(api, "ws://x/v1/ws");
  root = createRoot(page.appendChild(document.createElement("div")));
  reflect(dashboard, page);
  dashboard.start();
  await act(async () =>
    root.render(
      <DashboardContext value={dashboard}>
        <Header />
        <FrameBar />
        <Legend />
        <Tape />
        <Dialogs />
      </DashboardContext>,
    ),
  );
  await act(async () => socket.open());
  await frame();
});

afterEach(async () => {
  await act(async () => root.unmount());
  dashboard.stop();
  page.remove();
  vi.unstubAllGlobals();
});

it("opens the first instrument, says that it is simulated, and shows its day", async () => {
  expect(text(".symbol-name")).toBe("A/B");
  expect(text(".simulated")).toBe("SIMULATED");
  expect(text(".price-change")).toContain("▼ −1.50%");
  expect(text(".connection-word")).toBe("Live");
});

it("prints the newest candle digit for digit, and what is drawn can be asserted on the root", async () => {
  const open = candle(60_000, { close: "1.7500001", volume: "10.500", state: "open", rev: 0 });
  await act(async () => {
    socket.receive({ type: "snapshot", ch: "candle@sim:AB@1m", pos: "e:1", data: [candle(0), open] });
    socket.receive({
      type: "event",
      ch: "candle@sim:AB@1m",
      pos: "e:2",
      kind: "revised",
      data: [candle(0, { rev: 1 })],
    });
  });
  await frame();
  expect(text(".legend")).toContain("C1.7500001");
  expect(text(".legend")).toContain("V10.500");
  expect(text(".state")).toBe("open");
  expect({ ...page.dataset }).toMatchObject({
    instrument: "sim:AB",
    tf: "1m",
    bars: "2",
    updates: "1",
    lastOpenTime: "60000",
    lastRev: "0",
    connection: "live",
  });
});

it("shows the hovered candle with its revision and its hole", async () => {
  const rows = [candle(0, { rev: 2, state: "closed", complete: false }), candle(60_000), candle(120_000)];
  await act(async () => socket.receive({ type: "snapshot", ch: "candle@sim:AB@1m", pos: "e:1", data: rows }));
  await act(async () => dashboard.hover(0));
  await frame();
  expect([...page.querySelectorAll(".state")].map((item) => item.textContent)).toEqual([
    "closed · rev 2",
    "incomplete",
  ]);
  await act(async () => dashboard.hover(null));
  await frame();
  expect(text(".state")).toBe("final");
});

it("writes trades newest first, with a mark for the side", async () => {
  await act(async () =>
    socket.receive({
      type: "snapshot",
      ch: "trade@sim:AB",
      pos: "e:2",
      data: [trade(1), trade(2, { side: "sell", price: "1234.5" })],
    }),
  );
  await frame();
  expect([...page.querySelectorAll(".tape li")].map((row) => row.textContent)).toEqual([
    "▼ 1,234.50.500:00:02",
    "▲ 1.750.500:00:01",
  ]);
  expect(text(".price-last")).toBe("1,234.5");
});

it("switches the timeframe through the address", async () => {
  const button = [...page.querySelectorAll<HTMLButtonElement>(".frame")].find((item) => item.textContent === "4h");
  await navigating(() => button?.click());
  expect(location.hash).toBe("#sim:AB/4h");
  expect(button?.getAttribute("aria-pressed")).toBe("true");
  expect(page.dataset.tf).toBe("4h");
});

it("finds and opens another instrument by keyboard", async () => {
  await act(async () => dashboard.store.set({ dialog: "search", searchText: "c" }));
  await frame();
  const field = page.querySelector("input") as HTMLInputElement;
  expect([...page.querySelectorAll(".option strong")].map((item) => item.textContent)).toEqual(["CD"]);
  await navigating(() => field.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", bubbles: true })));
  expect(page.dataset.instrument).toBe("binance:CD");
  expect(page.querySelector("dialog")).toBeNull();
  expect(page.querySelector(".simulated")).toBeNull();
});

it("keeps the chosen theme, and lets the address win", async () => {
  await act(async () => dashboard.toggleTheme());
  await frame();
  expect(document.documentElement.dataset.theme).toBe("light");
  expect(JSON.parse(localStorage.getItem("tapewick.preferences") ?? "{}")).toMatchObject({ theme: "light" });
  await navigating(() => {
    location.hash = "#sim:AB/1m?theme=dark";
  });
  expect(document.documentElement.dataset.theme).toBe("dark");
});

it("asks for the token a server wants, and goes on with it", async () => {
  expect(offered).toEqual([]);
  await act(async () => socket.drop(4401, "not authenticated"));
  await frame();
  const field = page.querySelector<HTMLInputElement>("dialog input[type=password]");
  expect(text("dialog h2")).toBe("This server asks for a token");
  await act(async () => {
    Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value")?.set?.call(field, " abc ");
    field?.dispatchEvent(new Event("input", { bubbles: true }));
  });
  await act(async () => page.querySelector<HTMLButtonElement>("dialog button")?.click());
  await frame();
  expect(offered).toEqual(["tapewick.v1.json", "tapewick.key.abc"]);
  expect(page.querySelector("dialog")).toBeNull();
});
