import type { JSX } from "react";
import { candleTime, changeText, compact, grouped, sinceText, type Zone } from "../format";
import { A_MINUTE, type ConnectionState } from "../health";
import { isSimulated } from "../model";
import { useDashboard, useValue } from "./context";
import { BookIcon, Brand, ChevronIcon, KeyIcon, MoonIcon, SearchIcon, SunIcon, TapeIcon } from "./icons";

export function Header(): JSX.Element {
  return (
    <header className="header">
      <Brand />
      <SymbolButton />
      <Price />
      <Figures />
      <span className="spring" />
      <ConnectionBadge />
      <Toggles />
    </header>
  );
}

function SymbolButton(): JSX.Element {
  const { store } = useDashboard();
  const id = useValue((state) => state.instrument);
  const instrument = useValue((state) => state.instruments?.find((item) => item.id === state.instrument));
  const name = instrument?.base
    ? `${instrument.base}/${instrument.quote}`
    : (instrument?.symbol ?? id ?? "Instruments");
  return (
    <div className="symbol">
      <button
        type="button"
        className="symbol-button"
        aria-haspopup="dialog"
        aria-label={`Instrument ${id ?? "none"}, search`}
        title="Search instruments ( / )"
        onClick={() => store.set({ dialog: "search", searchText: "" })}
      >
        <SearchIcon />
        <span className="symbol-name">{name}</span>
        <span className="symbol-venue">{instrument?.venue ?? ""}</span>
        <ChevronIcon />
      </button>
      {id !== null && isSimulated(instrument, id) ? (
        <span className="simulated" title="Invented prices from a seeded generator, not a market">
          SIMULATED
        </span>
      ) : null}
    </div>
  );
}

function Price(): JSX.Element {
  const price = useValue((state) => state.lastTrade?.price ?? state.last?.close ?? state.ticker?.last ?? null);
  const side = useValue((state) => state.lastTrade?.side ?? "unknown");
  const change = useValue((state) => Number(state.ticker?.change_pct_24h ?? Number.NaN));
  const day = useDay();
  const direction = side === "buy" ? "up" : side === "sell" ? "down" : "flat";
  return (
    <div className="price">
      <span className={`price-last ${direction}`}>{price === null ? "–" : grouped(price)}</span>
      <span className={`price-change ${change < 0 ? "down" : change > 0 ? "up" : "flat"}`} title={`Change ${day.hint}`}>
        {Number.isNaN(change) ? "" : changeText(change)}
        {Number.isNaN(change) ? null : <small> {day.label}</small>}
      </span>
    </div>
  );
}

/** What the figures of the day are of: 24 hours, or as much of them as there is. */
function useDay(): { label: string; hint: string } {
  const since = useValue((state) => state.since);
  const zone: Zone = useValue((state) => state.zone);
  if (since === null) return { label: "24h", hint: "over 24 hours" };
  return {
    label: sinceText(since, Date.now(), zone),
    hint: `since the data begin, ${candleTime(since, "1m", zone)}: less than 24 hours`,
  };
}

function Figures(): JSX.Element | null {
  const ticker = useValue((state) => state.ticker);
  const day = useDay();
  if (ticker === null) return null;
  const figures: [string, string | null, boolean][] = [
    ["high", ticker.high_24h, false],
    ["low", ticker.low_24h, false],
    ["volume", ticker.volume_24h, true],
  ].map(([name, text, short]) => [day.label === "24h" ? `24h ${name}` : `${name} ${day.label}`, text, short]) as [
    string,
    string | null,
    boolean,
  ][];
  return (
    <dl className="figures" title={`Figures ${day.hint}`}>
      {figures.map(([name, text, short]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd title={text ?? ""}>{text === null ? "–" : short ? compact(text) : grouped(text)}</dd>
        </div>
      ))}
    </dl>
  );
}

const WORDS: Record<ConnectionState, string> = {
  live: "Live",
  stale: "Stale",
  reconnecting: "Reconnecting",
  offline: "Offline",
};

function ConnectionBadge(): JSX.Element {
  const { store } = useDashboard();
  const { state, latency, rate, detail } = useValue((value) => value.connection);
  const alive = state === "live" || state === "stale";
  const hint = alive
    ? state === "stale" && detail !== ""
      ? detail
      : "Median time from exchange to this browser, and messages per second"
    : `Retrying${detail === "" ? "" : `: ${detail}`}`;
  return (
    <button
      type="button"
      className={`connection ${state}`}
      title={`${hint}. More ( h )`}
      aria-haspopup="dialog"
      onClick={() => store.set({ dialog: "health" })}
    >
      <span className="dot" aria-hidden="true" />
      <span className="connection-word">{WORDS[state]}</span>
      {alive ? (
        <span className="connection-figures">
          {latency === null || latency > A_MINUTE ? null : <span>{latency} ms</span>}
          <span>{rate} msg/s</span>
        </span>
      ) : null}
    </button>
  );
}

function Toggles(): JSX.Element {
  const dashboard = useDashboard();
  const theme = useValue((state) => state.theme);
  const zone = useValue((state) => state.zone);
  const tape = useValue((state) => state.tape);
  const book = useValue((state) => state.book);
  return (
    <div className="toggles">
      <button
        type="button"
        className="text-button"
        aria-label={`Time zone ${zone}, switch`}
        onClick={() => dashboard.toggleZone()}
        title="UTC or local time"
      >
        {zone === "utc" ? "UTC" : "Local"}
      </button>
      <button
        type="button"
        className="icon-button tape-toggle"
        aria-pressed={book}
        aria-label="Order book panel"
        title="Order book ( b )"
        onClick={() => dashboard.toggleBook()}
      >
        <BookIcon />
      </button>
      <button
        type="button"
        className="icon-button tape-toggle"
        aria-pressed={tape}
        aria-label="Trades panel"
        title="Trades ( t )"
        onClick={() => dashboard.toggleTape()}
      >
        <TapeIcon />
      </button>
      <button
        type="button"
        className="icon-button"
        aria-label={`Switch to ${theme === "dark" ? "light" : "dark"} theme`}
        title="Theme ( d )"
        onClick={() => dashboard.toggleTheme()}
      >
        {theme === "dark" ? <SunIcon /> : <MoonIcon />}
      </button>
      <button
        type="button"
        className="icon-button keys-toggle"
        aria-label="Keyboard keys"
        title="Keys ( ? )"
        onClick={() => dashboard.store.set({ dialog: "help" })}
      >
        <KeyIcon />
      </button>
    </div>
  );
}
