import { type JSX, type KeyboardEvent, useEffect, useRef, useState } from "react";
import { KEY_HELP } from "../keys";
import { type Instrument, isSimulated } from "../model";
import { searchInstruments } from "../search";
import { useDashboard, useValue } from "./context";
import { HealthDialog } from "./HealthDialog";
import { Modal } from "./Modal";

export function Dialogs(): JSX.Element | null {
  const dialog = useValue((state) => state.dialog);
  if (dialog === "search") return <Search />;
  if (dialog === "token") return <Token />;
  if (dialog === "health") return <HealthDialog />;
  return dialog === "help" ? <Help /> : null;
}

const SHOWN = 60;

function Search(): JSX.Element {
  const dashboard = useDashboard();
  const instruments = useValue((state) => state.instruments) ?? [];
  const current = useValue((state) => state.instrument);
  const [text, setText] = useState(() => dashboard.store.get().searchText);
  const [active, setActive] = useState(0);
  const found = searchInstruments(text, instruments).slice(0, SHOWN);
  const list = useRef<HTMLDivElement>(null);
  useEffect(() => {
    list.current?.children[active]?.scrollIntoView?.({ block: "nearest" });
  }, [active]);
  const choose = (instrument: Instrument | undefined): void => {
    if (instrument === undefined) return;
    dashboard.store.set({ dialog: null });
    dashboard.open(instrument.id, dashboard.store.get().tf);
  };
  const press = (event: KeyboardEvent): void => {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (by !== undefined && found.length > 0) setActive((active + by + found.length) % found.length);
    if (event.key === "Enter") choose(found[active]);
    if (by !== undefined || event.key === "Enter") event.preventDefault();
  };
  return (
    <Modal label="Search instruments" className="search">
      <input
        // the dialog exists to type into this field
        autoFocus
        type="text"
        role="combobox"
        aria-expanded="true"
        aria-controls="search-list"
        aria-activedescendant={found[active] === undefined ? undefined : `search-${active}`}
        aria-label="Instrument"
        placeholder="Search instruments"
        spellCheck={false}
        autoComplete="off"
        value={text}
        onChange={(event) => {
          setText(event.target.value);
          setActive(0);
        }}
        onKeyDown={press}
      />
      <div className="search-list" id="search-list" role="listbox" aria-label="Instruments" ref={list}>
        {found.map((instrument, index) => (
          // the keys are handled in the field above
          <div
            key={instrument.id}
            id={`search-${index}`}
            role="option"
            tabIndex={-1}
            aria-selected={index === active}
            className={instrument.id === current ? "option current" : "option"}
            onPointerMove={() => setActive(index)}
            onClick={() => choose(instrument)}
          >
            <strong>{instrument.symbol}</strong>
            <span>{instrument.base === "" ? "" : `${instrument.base} / ${instrument.quote}`}</span>
            <span className="option-venue">
              {isSimulated(instrument, instrument.id) ? <em>simulated</em> : null} {instrument.venue}
            </span>
          </div>
        ))}
        {found.length === 0 ? <p className="nothing">Nothing matches “{text}”.</p> : null}
      </div>
      <p className="search-foot">
        <kbd>↑</kbd> <kbd>↓</kbd> choose <kbd>Enter</kbd> open <kbd>Esc</kbd> close
      </p>
    </Modal>
  );
}

function Token(): JSX.Element {
  const dashboard = useDashboard();
  const [text, setText] = useState("");
  return (
    <Modal label="Token" className="help">
      <form
        className="token"
        onSubmit={(event) => {
          event.preventDefault();
          dashboard.useToken(text);
        }}
      >
        <h2>This server asks for a token</h2>
        <p>One of those its operator gives out. It is kept until this tab is closed.</p>
        <input
          // the dialog exists to type into this field
          autoFocus
          type="password"
          aria-label="Token"
          placeholder="Token"
          autoComplete="current-password"
          value={text}
          onChange={(event) => setText(event.target.value)}
        />
        <button type="submit" className="text-button" disabled={text.trim() === ""}>
          Continue
        </button>
      </form>
    </Modal>
  );
}

function Help(): JSX.Element {
  const { store } = useDashboard();
  return (
    <Modal label="Keyboard keys" className="help">
      <h2>Keys</h2>
      <dl>
        {KEY_HELP.map(([keys, what]) => (
          <div key={keys}>
            <dt>
              <kbd>{keys}</kbd>
            </dt>
            <dd>{what}</dd>
          </div>
        ))}
      </dl>
      <button type="button" className="text-button" onClick={() => store.set({ dialog: null })}>
        Close
      </button>
    </Modal>
  );
}
