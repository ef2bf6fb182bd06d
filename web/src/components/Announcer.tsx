import { type JSX, useEffect, useState } from "react";
import { changeText, grouped } from "../format";
import { useDashboard } from "./context";

const EVERY_MS = 15_000;

/** A spoken summary for screen readers, at most every 15 s. */
export function Announcer(): JSX.Element {
  const { store } = useDashboard();
  const [text, setText] = useState("");
  useEffect(() => {
    const speak = (): void => {
      const { instrument, tf, last, ticker, connection } = store.get();
      if (instrument === null || last?.close == null) return;
      const change = Number(ticker?.change_pct_24h ?? Number.NaN);
      const day = Number.isNaN(change) ? "" : `, ${changeText(change)} in 24 hours`;
      setText(`${instrument}, ${tf} candles: ${grouped(last.close)}${day}. ${connection.state}.`);
    };
    const timer = setInterval(speak, EVERY_MS);
    return () => clearInterval(timer);
  }, [store]);
  return (
    <p className="unseen" aria-live="polite">
      {text}
    </p>
  );
}
