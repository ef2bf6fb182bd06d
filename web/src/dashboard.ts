/** The page without its looks: what is open, where the data comes from, and which choices were made. */

import { type Api, ApiError, HttpApi, UNAUTHORIZED } from "./api";
import { Feed } from "./feed";
import type { Zone } from "./format";
import type { DataFrame } from "./frames";
import { type Connection, Health } from "./health";
import { Market } from "./market";
import type { Candle, Instrument, Ticker, Trade } from "./model";
import { type Preferences, readPreferences, systemTheme, type Theme, writePreferences } from "./preferences";
import { Store } from "./store";
import { DEFAULT_TIMEFRAME } from "./timeframe";
import { writeToken } from "./token";
import { formatAddress, parseAddress } from "./url";

const TICKER_MS = 5_000;
const INSTRUMENTS_MS = 3_000;
const DAY_MS = 86_400_000;
const HEALTH_MS = 1_000;

export type Dialog = "search" | "help" | "health" | "token" | null;

export interface State {
  /** null until the server has answered once. */
  instruments: Instrument[] | null;
  instrument: string | null;
  tf: string;
  theme: Theme;
  zone: Zone;
  tape: boolean;
  book: boolean;
  connection: Connection;
  ticker: Ticker | null;
  /** When the data begin (ms), if that is less than a day before the newest trade. */
  since: number | null;
  lastTrade: Trade | null;
  last: Candle | null;
  /** The candle under the crosshair. */
  hovered: Candle | null;
  settling: boolean;
  bars: number;
  updates: number;
  loading: boolean;
  following: boolean;
  dialog: Dialog;
  searchText: string;
  frame: string;
  error: string | null;
}

export class Dashboard {
  readonly store: Store<State>;
  readonly market: Market;
  readonly api: Api;
  readonly #feed: Feed;
  readonly health = new Health(Date.now());
  #preferences: Preferences;
  #hoverTime: number | null = null;
  /** When the open instrument's data begin; undefined until the server was asked. */
  #begin: number | null | undefined = undefined;
  #timers: ReturnType<typeof setInterval>[] = [];

  constructor(api: Api = new HttpApi(), socketUrl: string = defaultSocketUrl()) {
    this.api = api;
    this.#preferences = readPreferences();
    this.store = new Store(this.#initial());
    this.#feed = new Feed({
      url: socketUrl,
      onData: (frame) => this.#receive(frame),
      onPhase: (phase, detail) => {
        this.health.phase(phase, detail, Date.now());
        this.#readHealth();
        if (phase === "open") void this.#loadTicker();
      },
      onHealth: ({ type, data }) => {
        if (type === "snapshot") this.health.recover();
        this.health.conditions(data);
        this.#readHealth();
      },
      onBook: (frame) => this.market.receiveBook(frame),
      onUnauthorized: () => this.store.set({ dialog: "token" }),
      onRefused: (ch, message) => this.#refused(ch, message),
      onClock: (offset) => this.health.clock(offset),
    });
    this.market = new Market(this.#feed, api, {
      onChange: () => this.#changed(),
      onError: (error) => this.store.set({ error }),
    });
  }

  start(): void {
    this.#feed.start();
    this.#navigate();
    void this.#loadInstruments();
    addEventListener("hashchange", () => this.#navigate());
    addEventListener("online", () => this.#feed.retryNow());
    addEventListener("offline", () => this.#readHealth());
    matchMedia("(prefers-color-scheme: light)").addEventListener("change", () => this.#applyAddress());
    this.#timers = [
      setInterval(() => this.#readHealth(), HEALTH_MS),
      setInterval(() => void this.#loadTicker(), TICKER_MS),
      setInterval(() => void this.#loadInstruments(), INSTRUMENTS_MS),
    ];
  }

  stop(): void {
    this.#feed.stop();
    for (const timer of this.#timers) clearInterval(timer);
  }

  /** Opens a view by changing the address, so that Back returns to the one before. */
  open(instrument: string | null, tf: string): void {
    location.hash = formatAddress({ ...parseAddress(location.hash), instrument, tf });
  }

  setTimeframe(tf: string): void {
    this.open(this.store.get().instrument, tf);
  }

  /** Opens the instrument `by` places further down the list. */
  step(by: number): void {
    const { instruments, instrument, tf } = this.store.get();
    if (!instruments?.length) return;
    const index = instruments.findIndex(({ id }) => id === instrument);
    const next = instruments[(index + by + instruments.length) % instruments.length];
    if (next !== undefined) this.open(next.id, tf);
  }

  /** Goes on with a token the server asked for. */
  useToken(token: string): void {
    writeToken(token.trim());
    this.store.set({ dialog: null });
    this.#feed.retryNow();
    void this.#loadInstruments();
  }

  toggleTheme(): void {
    this.#choose({ theme: this.store.get().theme === "dark" ? "light" : "dark" });
  }

  toggleZone(): void {
    this.#choose({ zone: this.store.get().zone === "utc" ? "local" : "utc" });
  }

  toggleTape(): void {
    this.#choose({ tape: !this.store.get().tape });
  }

  toggleBook(): void {
    this.#choose({ book: !this.store.get().book });
  }

  hover(openTime: number | null): void {
    this.#hoverTime = openTime;
    this.#showLegend();
  }

  #initial(): State {
    return {
      instruments: null,
      instrument: null,
      tf: DEFAULT_TIMEFRAME,
      theme: systemTheme(),
      zone: "utc",
      tape: true,
      book: true,
      connection: { state: "reconnecting", latency: null, rate: 0, detail: "" },
      ticker: null,
      since: null,
      lastTrade: null,
      last: null,
      hovered: null,
      settling: false,
      bars: 0,
      updates: 0,
      loading: true,
      following: true,
      dialog: null,
      searchText: "",
      frame: "",
      error: null,
    };
  }

  /** Follows the address; without an instrument in it the first one of the list is opened. */
  #navigate(): void {
    this.#applyAddress();
    const address = parseAddress(location.hash);
    const { instruments, instrument: open, tf: openFrame } = this.store.get();
    const instrument = address.instrument ?? instruments?.[0]?.id ?? null;
    const tf = address.tf ?? DEFAULT_TIMEFRAME;
    if (instrument === null || (instrument === open && tf === openFrame)) return;
    if (instrument !== open) {
      this.health.reset(Date.now());
      this.#begin = undefined;
      this.store.set({ ticker: null, since: null, lastTrade: null });
    }
    this.#hoverTime = null;
    this.store.set({ instrument, tf, error: null });
    this.market.open(instrument, tf);
    void this.#loadTicker();
  }

  /** Theme and zone: the address wins over the stored choice, that over the system. */
  #applyAddress(): void {
    const address = parseAddress(location.hash);
    const { theme, zone, tape, book } = this.#preferences;
    this.store.set({ theme: address.theme ?? theme ?? systemTheme(), zone: address.tz ?? zone, tape, book });
    this.market.wantBook(book);
  }

  #choose(choice: Partial<Preferences>): void {
    this.#preferences = { ...this.#preferences, ...choice };
    writePreferences(this.#preferences);
    const address = parseAddress(location.hash);
    if (address.theme !== null && choice.theme) address.theme = choice.theme;
    if (address.tz !== null && choice.zone) address.tz = choice.zone;
    const hash = formatAddress(address);
    if (hash !== "" && hash !== location.hash) history.replaceState(null, "", hash);
    this.#applyAddress();
  }

  #receive(frame: DataFrame): void {
    const live = frame.type === "event" && frame.ch.startsWith("trade@") && frame.late !== true;
    const events = live ? (frame.data as Trade[]).map((trade) => trade.ts_event) : [];
    if (frame.type === "event" || frame.type === "update") this.health.frame(Date.now(), events);
    this.market.receive(frame);
  }

  #refused(ch: string, message: string): void {
    const { instrument, tf } = this.store.get();
    if (ch === `candle@${instrument}@${tf}`)
      this.store.set({ error: `${instrument} ${tf}: ${message}`, loading: false });
  }

  #changed(): void {
    const { table, updates, isLoading, trades } = this.market;
    this.store.set({ bars: table.rows.length, updates, loading: isLoading, lastTrade: trades[0] ?? null });
    this.#showLegend();
    this.store.touch();
  }

  #showLegend(): void {
    const { table } = this.market;
    const last = table.last ?? null;
    const hovered = this.#hoverTime === null ? null : (table.find(this.#hoverTime) ?? null);
    const shown = hovered ?? last;
    this.store.set({ last, hovered, settling: shown !== null && table.isSettling(shown.open_time) });
  }

  #readHealth(): void {
    const next = this.health.read(Date.now(), navigator.onLine);
    const held = this.store.get().connection;
    const same = (Object.keys(next) as (keyof Connection)[]).every((key) => next[key] === held[key]);
    if (!same) this.store.set({ connection: next });
  }

  /** Whether polling makes sense: somebody looks, and the server is there. */
  get #isAsking(): boolean {
    const { state } = this.store.get().connection;
    return !document.hidden && (state === "live" || state === "stale");
  }

  async #loadInstruments(): Promise<void> {
    const { instruments: held } = this.store.get();
    if (held !== null && !this.#isAsking) return;
    try {
      const instruments = await this.api.instruments();
      if (JSON.stringify(held) !== JSON.stringify(instruments)) this.store.set({ instruments });
      this.#navigate();
    } catch (error) {
      if (error instanceof ApiError && error.status === UNAUTHORIZED) this.store.set({ dialog: "token" });
      return; // the connection state already says that the server is away; the next turn asks again
    }
  }

  async #loadTicker(): Promise<void> {
    const { instrument } = this.store.get();
    if (instrument === null || !this.#isAsking) return;
    try {
      const ticker = await this.api.ticker(instrument);
      const begin = this.#begin ?? (await this.api.begin(instrument));
      if (this.store.get().instrument !== instrument) return;
      this.#begin = begin;
      const young = begin !== null && ticker.ts !== null && begin > ticker.ts - DAY_MS;
      this.store.set({ ticker, since: young ? begin : null });
    } catch (error) {
      if (error instanceof ApiError) this.store.set({ ticker: null }); // no figures rather than old ones
    }
  }
}

function defaultSocketUrl(): string {
  const url = new URL("./v1/ws", location.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  url.hash = "";
  return url.href;
}
