import { type JSX, useEffect, useRef } from "react";
import { CandleChart, type View } from "../chart";
import { useDashboard, useValue } from "./context";
import { Legend } from "./Legend";

export function ChartPane({ onChart }: { onChart: (chart: CandleChart | null) => void }): JSX.Element {
  const following = useValue((state) => state.following);
  const stale = useValue((state) => state.connection.state !== "live");
  const chart = useRef<CandleChart | null>(null);
  return (
    <section className={`chart-pane${stale ? " dimmed" : ""}`} aria-label="Price chart">
      <Canvas
        onChart={(made) => {
          chart.current = made;
          onChart(made);
        }}
      />
      <Legend />
      <Cover />
      <FrameEntry />
      {following ? null : (
        <button type="button" className="go-live" onClick={() => chart.current?.goLive()}>
          → live
        </button>
      )}
    </section>
  );
}

/** The element the chart library fills; it follows the store, not React. */
function Canvas({ onChart }: { onChart: (chart: CandleChart | null) => void }): JSX.Element {
  const dashboard = useDashboard();
  const element = useRef<HTMLDivElement>(null);
  const report = useRef(onChart);
  report.current = onChart;
  useEffect(() => {
    if (element.current === null) return;
    const chart = drive(element.current, dashboard);
    report.current(chart.chart);
    return () => {
      report.current(null);
      chart.stop();
    };
  }, [dashboard]);
  return <div className="canvas" ref={element} />;
}

interface Driven {
  chart: CandleChart;
  stop: () => void;
}

/** Keeps a chart in step with the store: changed rows each frame, theme and zone when they change. */
function drive(element: HTMLElement, dashboard: ReturnType<typeof useDashboard>): Driven {
  const { store, market } = dashboard;
  const chart = new CandleChart(element, market, {
    onHover: (openTime) => dashboard.hover(openTime),
    onFollow: (following) => store.set({ following }),
    onNeedHistory: () => void market.loadOlder(),
  });
  let { theme, zone, instrument, tf } = store.get();
  let kept: View | null = null;
  const follow = (): void => {
    const state = store.get();
    const isSwitch = state.instrument !== instrument || state.tf !== tf;
    if (isSwitch) kept = state.instrument === instrument ? (chart.view ?? kept) : null;
    ({ instrument, tf } = state);
    chart.apply(market.drain());
    if (kept !== null && market.loaded) {
      void restore(chart, dashboard, kept);
      kept = null;
    }
    if (state.theme !== theme) chart.setTheme();
    if (state.zone !== zone) chart.setZone(state.zone);
    ({ theme, zone } = state);
  };
  chart.setZone(zone);
  follow();
  const unsubscribe = store.subscribe(follow);
  return {
    chart,
    stop: () => {
      unsubscribe();
      chart.remove();
    },
  };
}

/** Brings the span of time that was in view back into view, loading history for it if need be. */
async function restore(chart: CandleChart, dashboard: ReturnType<typeof useDashboard>, view: View): Promise<void> {
  const { market } = dashboard;
  const opened = `${market.instrument}@${market.tf}`;
  chart.show(view);
  if (view.following) return;
  await market.reach(view.from);
  if (opened !== `${market.instrument}@${market.tf}`) return;
  chart.apply(market.drain());
  chart.show(view);
}

/** What stands in place of candles while there are none. */
function Cover(): JSX.Element | null {
  const error = useValue((state) => state.error);
  const bars = useValue((state) => state.bars);
  const loading = useValue((state) => state.loading);
  const instruments = useValue((state) => state.instruments);
  const offline = useValue(
    (state) => state.connection.state === "offline" || state.connection.state === "reconnecting",
  );
  if (error !== null) return <p className={bars > 0 ? "cover note" : "cover"}>{error}</p>;
  if (bars > 0) return loading ? <div className="progress" role="progressbar" aria-label="Loading" /> : null;
  if (offline) return <p className="cover">Waiting for the server…</p>;
  if (instruments?.length === 0)
    return <p className="cover">No instruments yet. Candles appear with the first trade.</p>;
  return <p className="cover">{loading ? "Loading…" : "No candles yet in this timeframe."}</p>;
}

function FrameEntry(): JSX.Element | null {
  const frame = useValue((state) => state.frame);
  if (frame === "") return null;
  return (
    <div className="frame-entry" role="status">
      {frame}
      <small>Enter</small>
    </div>
  );
}
