// @vitest-environment jsdom
import { act } from "react";
import { createRoot, type Root } from "react-dom/client";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import type { Api } from "../api";
import { Book } from "../components/Book";
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

const DAY = 86_400_000;

/** When the data begin that the server has. */
let begin: number;
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
  begin = 0;
  localStorage.clear();
  sessionStorage.clear();
  location.hash = "";
  const api = {
    instruments: async () => INSTRUMENTS,
    candles: async () => [],
    ticker: async () => ({
      last: "1.75",
      change_pct_24h: "-1.5",
      high_24h: "2",
      low_24h: "1",
      volume_24h: "1500",
      ts: 2 * DAY,
      data_age_ms: 340,
    }),
    begin: async () => begin,
    coverage: async () => ({
      trades: 12_345,
      ranges: [
        [1, 900],
        [1_000, 12_444],
      ],
      gaps: [{ state: "open" }, { state: "closed" }],
      complete: false,
      position: "e:12345",
    }),
    status: async () => ({ version: "1.2.3", engine: "native", trouble: null }),
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
        <Book />
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

it("says since when, where the data of a day are less than a day", async () => {
  expect(text(".price-change")).toContain("24h");
  expect(text(".figures")).toContain("24h high");
  begin = DAY + 3 * 3_600_000 + 12 * 60_000; // on the second of January, a day before the newest trade but hours
  await navigating(() => {
    location.hash = "#binance:CD/1m";
  });
  expect(text(".price-change")).toContain("since 2 Jan 03:12");
  expect(text(".figures")).toContain("high since 2 Jan 03:12");
  expect(text(".figures")).not.toContain("24h");
});

it("draws the book as a ladder around its spread, and does not believe one that is not live", async () => {
  const BOOK = "book_top@sim:AB";
  const book = { instrument: "sim:AB", state: "live", ts_event: 1, bids: [["1234.5", "2"], ["1234.4", "0.5"]], asks: [["1234.75", "1"]] };
  expect(text(".book-note")).toBe("Waiting for the order book…");
  await act(async () => socket.receive({ type: "snapshot", ch: BOOK, ts: 1, data: [book] }));
  await frame();
  const rows = (side: string): string[] =>
    [...page.querySelectorAll(`.book-${side} li:not(.empty)`)].map((row) =>
      [...row.children].map((cell) => cell.textContent).join(" "),
    );
  expect(rows("asks")).toEqual(["1,234.75 1.0 1.0"]);
  expect(rows("bids")).toEqual(["1,234.50 2.0 2.0", "1,234.40 0.5 2.5"]);
  expect([text(".book-mid"), text(".book-spread")]).toEqual(["1,234.625", "spread 0.25 · 2.02 bp"]);
  expect([text(".book-state"), text(".book-note")]).toEqual(["live", ""]);
  const step = page.querySelector<HTMLSelectElement>(".book-step");
  expect([...(step?.options ?? [])].map((option) => option.text)).toEqual(["0.01", "0.1", "1", "10"]);
  await act(async () => {
    if (step) step.value = "1";
    step?.dispatchEvent(new Event("change", { bubbles: true }));
  });
  expect(text(".book-bids li:not(.empty) .book-price")).toBe("1,234");
  expect(text(".book-asks li:not(.empty) .book-price")).toBe("1,235");
  expect(text(".book-mid")).toBe("1,234.625");
  await act(async () => {
    if (step) step.value = "";
    step?.dispatchEvent(new Event("change", { bubbles: true }));
  });
  const stale = { ...book, state: "stale", detail: "the stream stopped" };
  await act(async () => socket.receive({ type: "update", ch: BOOK, ts: 2, data: [stale] }));
  await frame();
  expect([text(".book-state"), text(".book-note")]).toEqual(["stale", "Not current: the stream stopped"]);
  expect(rows("bids")).toHaveLength(2);
  await act(async () => socket.receive({ type: "update", ch: BOOK, ts: 3, data: [{ ...book, state: "syncing" }] }));
  await frame();
  expect([rows("asks"), rows("bids"), text(".book-mid")]).toEqual([[], [], "–"]);
  expect(page.querySelector<HTMLElement>(".book")?.dataset.state).toBe("syncing");
  await act(async () => socket.receive({ type: "update", ch: BOOK, ts: 4, data: [] }));
  await frame();
  expect(text(".book-note")).toBe("No order book of this instrument.");
});

it("follows the book only while its panel is shown", async () => {
  const asked = (op: string): string => JSON.stringify(socket.requests(op));
  expect(asked("subscribe")).toContain("book_top@sim:AB");
  await act(async () => dashboard.toggleBook());
  expect(asked("unsubscribe")).toContain("book_top@sim:AB");
  expect(JSON.parse(localStorage.getItem("tapewick.preferences") ?? "{}")).toMatchObject({ book: false });
  const before = socket.requests("subscribe").length;
  await act(async () => dashboard.toggleBook());
  expect(JSON.stringify(socket.requests("subscribe").slice(before))).toContain("book_top@sim:AB");
});

it("tells how the data come about: connection, server, tape, sources, book, gaps", async () => {
  const stream = { kind: "stream_health", source: "sim:ws", instrument: null, ts: 3_600_000 };
  await act(async () =>
    socket.receive({
      type: "snapshot",
      ch: "health@sim:AB",
      ts: 1,
      data: [
        { ...stream, state: "disconnected", detail: "cannot be reached" },
        { kind: "book_state", instrument: "sim:AB", state: "stale", detail: "no update" },
        { kind: "gap_opened", instrument: "sim:AB", left_id: 900, right_id: 1_000, left_ts: 0, right_ts: null, state: "open", reason: "restart", attempts: 2 },
      ],
    }),
  );
  await act(async () => page.querySelector<HTMLButtonElement>(".connection")?.click());
  await frame();
  const told = text("dialog.health");
  expect(told).toContain("tapewick 1.2.3, native engine");
  expect(told).toContain("1 open gap");
  expect(told).toContain("12,345 trades");
  expect(told).toContain("340 ms old");
  expect(told).toContain("1 – 12444 in 2 ranges");
  expect(told).toContain("▲ disconnected");
  expect(told).toContain("cannot be reached");
  expect(told).toContain("901 – 999");
  expect(told).toContain("2 attempts");
  expect(told).toContain("no update");
});
