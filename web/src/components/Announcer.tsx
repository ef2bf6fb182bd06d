import { type JSX, useEffect, useState } from "react";
import { changeText, grouped, sinceText } from "../format";
import { useDashboard, useValue } from "./context";

const EVERY_MS = 15_000;

/** A spoken summary for screen readers, at most every 15 s, and the connection's state when it changes. */
export function Announcer(): JSX.Element {
  const { store } = useDashboard();
  const state = useValue((value) => value.connection.state);
  const [text, setText] = useState("");
  useEffect(() => {
    const speak = (): void => {
      const { instrument, tf, last, ticker, since, zone, connection } = store.get();
      if (instrument === null || last?.close == null) return;
      const change = Number(ticker?.change_pct_24h ?? Number.NaN);
      const span = since === null ? "in 24 hours" : sinceText(since, Date.now(), zone);
      const day = Number.isNaN(change) ? "" : `, ${changeText(change)} ${span}`;
      setText(`${instrument}, ${tf} candles: ${grouped(last.close)}${day}. ${connection.state}.`);
    };
    const timer = setInterval(speak, EVERY_MS);
    return () => clearInterval(timer);
  }, [store]);
  return (
    <>
      <p className="unseen" aria-live="polite">
        {text}
      </p>
      <p className="unseen" role="status">
        {state}
      </p>
    </>
  );
}
