import { type JSX, useEffect, useRef } from "react";
import type { CandleChart } from "../chart";
import type { Dashboard } from "../dashboard";
import { type Action, frameAfterPause, keyAction } from "../keys";
import { Announcer } from "./Announcer";
import { Book } from "./Book";
import { ChartPane } from "./ChartPane";
import { DashboardContext, useValue } from "./context";
import { Dialogs } from "./Dialogs";
import { FrameBar } from "./FrameBar";
import { Header } from "./Header";
import { Tape } from "./Tape";

export function App({ dashboard }: { dashboard: Dashboard }): JSX.Element {
  const chart = useRef<CandleChart | null>(null);
  useEffect(() => listenToKeys(dashboard, () => chart.current), [dashboard]);
  return (
    <DashboardContext value={dashboard}>
      <Header />
      <FrameBar />
      <Main
        onChart={(made) => {
          chart.current = made;
        }}
      />
      <Footer />
      <Dialogs />
      <Announcer />
    </DashboardContext>
  );
}

function Main({ onChart }: { onChart: (chart: CandleChart | null) => void }): JSX.Element {
  const tape = useValue((state) => state.tape);
  const book = useValue((state) => state.book);
  return (
    <main className={tape || book ? "main" : "main without-side"}>
      <h1 className="unseen">tapewick live candles</h1>
      <ChartPane onChart={onChart} />
      {tape || book ? (
        <div className="side">
          {book ? <Book /> : null}
          {tape ? <Tape /> : null}
        </div>
      ) : null}
    </main>
  );
}

function Footer(): JSX.Element {
  const bars = useValue((state) => state.bars);
  const zone = useValue((state) => state.zone);
  return (
    <footer className="footer">
      <span>{bars} candles</span>
      <span>{zone === "utc" ? "Times in UTC" : `Times in ${Intl.DateTimeFormat().resolvedOptions().timeZone}`}</span>
      <span className="spring" />
      <a href="docs">API</a>
      <a href="https://www.tradingview.com/" target="_blank" rel="noopener noreferrer">
        Charts by TradingView
      </a>
    </footer>
  );
}

const FRAME_PAUSE_MS = 900;

function listenToKeys(dashboard: Dashboard, chart: () => CandleChart | null): () => void {
  let pause: ReturnType<typeof setTimeout> | undefined;
  const { store } = dashboard;
  const endPause = (): void => {
    const tf = frameAfterPause(store.get().frame);
    if (tf === null) return;
    store.set({ frame: "" });
    dashboard.setTimeframe(tf);
  };
  const press = (event: KeyboardEvent): void => {
    const { dialog, frame } = store.get();
    const inField = event.target instanceof HTMLElement && event.target.matches("input, textarea, select");
    const action = keyAction(event, { inField, dialogOpen: dialog !== null, frame });
    if (action === null) return;
    if (action.do !== "close") event.preventDefault();
    clearTimeout(pause);
    act(action, dashboard, chart());
    if (action.do === "frame") pause = setTimeout(endPause, FRAME_PAUSE_MS);
  };
  document.addEventListener("keydown", press);
  return () => {
    clearTimeout(pause);
    document.removeEventListener("keydown", press);
  };
}

function act(action: Action, dashboard: Dashboard, chart: CandleChart | null): void {
  const { store } = dashboard;
  switch (action.do) {
    case "search":
      return store.set({ dialog: "search", searchText: action.text });
    case "help":
      return store.set({ dialog: "help" });
    case "close":
      return store.set({ dialog: null, frame: "" });
    case "frame":
      return store.set({ frame: action.text });
    case "frame-enter":
      store.set({ frame: "" });
      return action.tf === null ? undefined : dashboard.setTimeframe(action.tf);
    case "theme":
      return dashboard.toggleTheme();
    case "tape":
      return dashboard.toggleTape();
    case "book":
      return dashboard.toggleBook();
    case "health":
      return store.set({ dialog: "health" });
    case "instrument":
      return dashboard.step(action.by);
    case "live":
      return chart?.goLive();
    case "pan":
      return chart?.pan(action.by * 10);
    case "zoom":
      return chart?.zoom(action.by);
    case "screenshot":
      return save(chart, dashboard);
  }
}

function save(chart: CandleChart | null, dashboard: Dashboard): void {
  chart?.screenshot().toBlob((blob) => {
    if (blob === null) return;
    const link = document.createElement("a");
    const { instrument, tf } = dashboard.store.get();
    link.href = URL.createObjectURL(blob);
    link.download = `${instrument ?? "chart"}-${tf}.png`.replaceAll(/[:/]/g, "-");
    link.click();
    URL.revokeObjectURL(link.href);
  });
}
