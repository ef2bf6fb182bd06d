import { type JSX, useEffect, useRef } from "react";
import { BookView } from "../book";
import { useDashboard, useValue } from "./context";

/** The best levels of the order book. Rows are written by `book.ts` outside React, once a frame at most. */
export function Book(): JSX.Element {
  const dashboard = useDashboard();
  const instrument = useValue((state) => state.instruments?.find(({ id }) => id === state.instrument));
  const stale = useValue((state) => state.connection.state !== "live");
  const panel = useRef<HTMLElement>(null);
  useEffect(() => {
    const root = panel.current;
    if (root === null) return;
    const part = (name: string): HTMLElement => root.querySelector(`.${name}`) as HTMLElement;
    const view = new BookView({
      panel: root,
      state: part("book-state"),
      step: part("book-step") as HTMLSelectElement,
      asks: part("book-asks"),
      bids: part("book-bids"),
      mid: part("book-mid"),
      spread: part("book-spread"),
      note: part("book-note"),
    });
    const show = (): void => view.show(dashboard.market.book);
    show();
    return dashboard.store.subscribe(show);
  }, [dashboard]);
  return (
    <section className={`book${stale ? " dimmed" : ""}`} aria-label="Order book" ref={panel}>
      <h2>
        Order book <small className="book-state" role="status" />
        <select className="book-step" aria-label="Group prices by" title="Group prices by" />
      </h2>
      <p className="book-note" />
      <div className="book-head" aria-hidden="true">
        <span>Price{instrument?.quote ? ` ${instrument.quote}` : ""}</span>
        <span>Size{instrument?.base ? ` ${instrument.base}` : ""}</span>
        <span>Total</span>
      </div>
      <ol className="book-asks" aria-label="Asks, the best last" />
      <div className="book-middle">
        <span className="book-mid" title="Middle between the best bid and ask" />
        <span className="book-spread" />
      </div>
      <ol className="book-bids" aria-label="Bids, the best first" />
    </section>
  );
}
