import { type JSX, useEffect, useRef } from "react";
import { TapeView } from "../tape";
import { useDashboard, useValue } from "./context";

/** The newest trades. Rows are written by `tape.ts` outside React: a thousand a second must not render. */
export function Tape(): JSX.Element {
  const dashboard = useDashboard();
  const quote = useValue((state) => state.instruments?.find(({ id }) => id === state.instrument)?.quote ?? "");
  const stale = useValue((state) => state.connection.state !== "live");
  const list = useRef<HTMLOListElement>(null);
  useEffect(() => {
    if (list.current === null) return;
    const view = new TapeView(list.current);
    const show = (): void => view.show(dashboard.market.trades, dashboard.store.get().zone);
    show();
    return dashboard.store.subscribe(show);
  }, [dashboard]);
  return (
    <aside className={`tape${stale ? " dimmed" : ""}`} aria-label="Recent trades">
      <h2>
        Trades <small>hover to pause</small>
      </h2>
      <div className="tape-head" aria-hidden="true">
        <span>Price{quote === "" ? "" : ` ${quote}`}</span>
        <span>Size</span>
        <span>Time</span>
      </div>
      {/* a list that scrolls must be reachable by keyboard */}
      <ol ref={list} tabIndex={0} aria-label="Trades, newest first" />
    </aside>
  );
}
