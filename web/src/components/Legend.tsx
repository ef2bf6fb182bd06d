import type { JSX } from "react";
import { isIncomplete } from "../candles";
import { candleTime, changeText } from "../format";
import { useValue } from "./context";

/** Figures of the candle under the crosshair, else of the newest: the server's strings, digit for digit. */
export function Legend(): JSX.Element | null {
  const row = useValue((state) => state.hovered ?? state.last);
  const settling = useValue((state) => state.settling);
  const tf = useValue((state) => state.tf);
  const zone = useValue((state) => state.zone);
  if (row === null) return null;
  const change = (Number(row.close) / Number(row.open) - 1) * 100;
  const direction = row.close === null ? "flat" : change < 0 ? "down" : "up";
  const prices: [string, string | null][] = [
    ["O", row.open],
    ["H", row.high],
    ["L", row.low],
    ["C", row.close],
  ];
  return (
    <div className="legend">
      <span className="legend-time">{candleTime(row.open_time, tf, zone)}</span>
      {prices.map(([name, text]) => (
        <span key={name} className="legend-figure">
          <abbr>{name}</abbr>
          <span className={direction}>{text ?? "–"}</span>
        </span>
      ))}
      <span className={`legend-figure ${direction}`}>{row.close === null ? "" : changeText(change)}</span>
      <span className="legend-figure">
        <abbr>V</abbr>
        <span>{row.volume}</span>
      </span>
      <span className={`state ${row.state}`} title={STATE_HINTS[row.state]}>
        {row.state}
        {row.rev > 0 ? ` · rev ${row.rev}` : ""}
      </span>
      {isIncomplete(row, settling) ? (
        <span className="state incomplete" title="Trades of this candle are known to be missing">
          incomplete
        </span>
      ) : null}
    </div>
  );
}

const STATE_HINTS = {
  open: "Still taking trades",
  closed: "Its time has passed; late trades may still revise it",
  final: "Proven complete by its trade ids",
} as const;
