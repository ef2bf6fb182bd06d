import { type JSX, type ReactNode, useEffect, useState } from "react";
import { ageText, clock, type Zone } from "../format";
import { A_MINUTE } from "../health";
import type { Condition, Coverage, Status } from "../model";
import { useDashboard, useValue } from "./context";
import { Modal } from "./Modal";

const EVERY_MS = 2_000;
const GAPS = 8;
const WAITING = { undefined: "…", null: "no answer" };

/** How the data of the open instrument come about: connection, streams, tape, book, gaps. */
export function HealthDialog(): JSX.Element {
  const dashboard = useDashboard();
  const id = useValue((state) => state.instrument);
  const zone = useValue((state) => state.zone);
  const asked = useAnswers();
  const { known } = dashboard.health;
  return (
    <Modal label="Health" className="health">
      <h2>
        Health <small>{id ?? "no instrument"}</small>
      </h2>
      <dl>
        <Connection />
        <Server status={asked.status} />
        <Tape coverage={asked.coverage} />
        {known.book === null ? null : (
          <Item name="Order book">
            <Mark state={known.book.state ?? ""} />
            {known.book.detail ? <span className="health-detail">{known.book.detail}</span> : null}
          </Item>
        )}
      </dl>
      <h3>Sources</h3>
      <Streams rows={known.streams} zone={zone} />
      <h3>Gaps under repair</h3>
      <Gaps rows={known.gaps} proven={asked.coverage?.complete ?? null} zone={zone} />
      <button type="button" className="text-button" onClick={() => dashboard.store.set({ dialog: null })}>
        Close
      </button>
    </Modal>
  );
}

/** What the server answers: undefined before the first time, null while it does not. */
interface Answers {
  coverage?: Coverage | null;
  status?: Status | null;
}

/** Asked again while the dialog is open. */
function useAnswers(): Answers {
  const { api, store } = useDashboard();
  const [answers, setAnswers] = useState<Answers>({});
  useEffect(() => {
    let isOpen = true;
    const ask = async (): Promise<void> => {
      const { instrument } = store.get();
      const [coverage, status] = await Promise.all([
        instrument === null ? null : api.coverage(instrument).catch(() => null),
        api.status().catch(() => null),
      ]);
      if (isOpen) setAnswers({ coverage, status });
    };
    void ask();
    const timer = setInterval(() => void ask(), EVERY_MS);
    return () => {
      isOpen = false;
      clearInterval(timer);
    };
  }, [api, store]);
  return answers;
}

function Item({ name, children }: { name: string; children: ReactNode }): JSX.Element {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

const GOOD = ["connected", "live", "complete", "ready"];

/** A state as a word; what is not well is marked by its shape too. */
function Mark({ state }: { state: string }): JSX.Element {
  const good = GOOD.includes(state);
  return (
    <span className={good ? "mark good" : "mark bad"}>
      <span aria-hidden="true">{good ? "●" : "▲"}</span> {state}
    </span>
  );
}

function Connection(): JSX.Element {
  const { state, latency, rate, detail } = useValue((value) => value.connection);
  const age = useValue((value) => value.ticker?.data_age_ms ?? null);
  return (
    <>
      <Item name="Connection">
        <Mark state={state} /> {latency === null || latency > A_MINUTE ? "" : `${latency} ms from exchange to here, `}
        {rate} msg/s
        {detail === "" || state === "live" ? null : <span className="health-detail">{detail}</span>}
      </Item>
      <Item name="Newest trade">{age === null ? "none yet" : `${ageText(age)} old`}</Item>
    </>
  );
}

function Server({ status }: { status: Status | null | undefined }): JSX.Element {
  if (!status) return <Item name="Server">{WAITING[`${status}`]}</Item>;
  return (
    <Item name="Server">
      <Mark state={status.trouble === null ? "ready" : "in trouble"} /> tapewick {status.version}, {status.engine} engine
      {status.trouble === null ? null : <span className="health-detail">{status.trouble}</span>}
    </Item>
  );
}

function Tape({ coverage }: { coverage: Coverage | null | undefined }): JSX.Element {
  if (!coverage) return <Item name="Tape">{WAITING[`${coverage}`]}</Item>;
  const { trades, ranges, complete, position } = coverage;
  const open = coverage.gaps.filter(({ state }) => state !== "closed").length;
  const state = complete === null ? "not provable" : complete ? "complete" : `${open} open ${open === 1 ? "gap" : "gaps"}`;
  const [first, last] = [ranges[0]?.[0], ranges.at(-1)?.[1]];
  return (
    <>
      <Item name="Tape">
        <Mark state={state} /> {trades.toLocaleString("en")} trades
        <span className="health-detail">position {position}</span>
      </Item>
      {first === undefined ? null : (
        <Item name="Covered ids">
          {first} – {last}
          {ranges.length > 1 ? ` in ${ranges.length} ranges` : ""}
        </Item>
      )}
    </>
  );
}

function Streams({ rows, zone }: { rows: Condition[]; zone: Zone }): JSX.Element {
  if (rows.length === 0) return <p className="nothing">No source has spoken of this instrument.</p>;
  return (
    <ul className="health-rows">
      {rows.map((row) => (
        <li key={`${row.source} ${row.instrument ?? ""}`}>
          <strong>{row.source}</strong>
          <span>{row.instrument ? "this instrument" : "all of it"}</span>
          <Mark state={row.state ?? ""} />
          <span>{row.ts ? `since ${clock(row.ts, zone).seconds}` : ""}</span>
          {row.detail ? <span className="health-detail">{row.detail}</span> : null}
        </li>
      ))}
    </ul>
  );
}

function Gaps({ rows, proven, zone }: { rows: Condition[]; proven: boolean | null; zone: Zone }): JSX.Element {
  if (rows.length === 0)
    return <p className="nothing">{proven ? "None: every id from the first to the last is there." : "None known."}</p>;
  return (
    <ul className="health-rows">
      {rows.slice(0, GAPS).map((row) => (
        <li key={`${row.left_id}-${row.right_id}`}>
          <strong>
            {Number(row.left_id) + 1} – {Number(row.right_id) - 1}
          </strong>
          <span>{between(row, zone)}</span>
          <Mark state={row.state ?? ""} />
          <span>{row.attempts ? `${row.attempts} attempts` : ""}</span>
          {row.reason ? <span className="health-detail">{row.reason}</span> : null}
        </li>
      ))}
      {rows.length > GAPS ? <li>and {rows.length - GAPS} more</li> : null}
    </ul>
  );
}

function between({ left_ts, right_ts }: Condition, zone: Zone): string {
  const text = (ts: number | null | undefined): string => (ts == null ? "…" : clock(ts, zone).seconds);
  return `${text(left_ts)} – ${text(right_ts)}`;
}
