import { type JSX, useEffect, useRef, useState } from "react";
import { MENU, SWITCH_BAR } from "../timeframe";
import { useDashboard, useValue } from "./context";
import { ChevronIcon } from "./icons";

/** The timeframe switch: thirteen in the bar, the other five in its menu. */
export function FrameBar(): JSX.Element {
  const dashboard = useDashboard();
  const tf = useValue((state) => state.tf);
  const bar = useRef<HTMLDivElement>(null);
  useEffect(() => {
    bar.current?.querySelector(`[data-frame="${tf}"]`)?.scrollIntoView?.({ block: "nearest", inline: "nearest" });
  }, [tf]);
  return (
    <nav className="frames" aria-label="Timeframe">
      <div className="frames-scroll" ref={bar}>
        {SWITCH_BAR.map((name) => (
          <button
            key={name}
            type="button"
            className="frame"
            data-frame={name}
            aria-pressed={name === tf}
            onClick={() => dashboard.setTimeframe(name)}
          >
            {name}
          </button>
        ))}
      </div>
      <FrameMenu />
    </nav>
  );
}

function FrameMenu(): JSX.Element {
  const dashboard = useDashboard();
  const tf = useValue((state) => state.tf);
  const [isOpen, setOpen] = useState(false);
  const root = useRef<HTMLDivElement>(null);
  const chosen = MENU.find((name) => name === tf);
  useEffect(() => {
    if (!isOpen) return;
    const close = (event: Event): void => {
      const outside = !root.current?.contains(event.target as Node);
      if (outside || (event instanceof KeyboardEvent && event.key === "Escape")) setOpen(false);
    };
    document.addEventListener("pointerdown", close);
    document.addEventListener("keydown", close);
    return () => {
      document.removeEventListener("pointerdown", close);
      document.removeEventListener("keydown", close);
    };
  }, [isOpen]);
  return (
    <div className="frame-menu" ref={root}>
      <button
        type="button"
        className="frame"
        aria-expanded={isOpen}
        aria-label="More timeframes"
        aria-pressed={chosen !== undefined}
        onClick={() => setOpen(!isOpen)}
      >
        {chosen ?? "more"}
        <ChevronIcon />
      </button>
      {isOpen ? (
        <div className="frame-list">
          {MENU.map((name) => (
            <button
              key={name}
              type="button"
              className="frame"
              aria-pressed={name === tf}
              onClick={() => {
                setOpen(false);
                dashboard.setTimeframe(name);
              }}
            >
              {name}
            </button>
          ))}
        </div>
      ) : null}
    </div>
  );
}
