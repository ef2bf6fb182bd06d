/** The candle chart: draws what the market's table holds, one `series.update` per changed row. No React in here. */

import {
  CandlestickSeries,
  type ColorType,
  CrosshairMode,
  createChart,
  createSeriesMarkers,
  HistogramSeries,
  type IChartApi,
  type IPriceLine,
  type ISeriesApi,
  type ISeriesMarkersPluginApi,
  LineStyle,
  type LogicalRange,
  type SeriesMarker,
  TickMarkType,
  type Time,
} from "lightweight-charts";
import { isIncomplete } from "./candles";
import { candleTime, decimalsOf, tickLabel, type Zone } from "./format";
import type { Changes, Market } from "./market";
import type { Candle } from "./model";
import { type Palette, readPalette } from "./palette";
import { candlePoint, chartTime, isUp, volumePoint } from "./points";
import { holeBetween, type Slot, slotsOf } from "./slots";
import { isDaily, lengthOf } from "./timeframe";
import { follows, relaid } from "./viewport";

/** Places kept free to the right of the last candle. */
const MARGIN = 6;
const BAR_SPACING = 8;
/** Places in view when there are hardly any candles yet. */
const YOUNG = 45;
/** With fewer places than this to the left of the view, older history is fetched. */
const HISTORY_AHEAD = 10;
/** A time range kept across a switch of timeframe must show a sensible number of candles. */
const FEWEST = 30;
const MOST = 1500;

const WEIGHTS = {
  [TickMarkType.Year]: "year",
  [TickMarkType.Month]: "month",
  [TickMarkType.DayOfMonth]: "day",
  [TickMarkType.Time]: "time",
  [TickMarkType.TimeWithSeconds]: "time",
} as const;

export interface ChartEvents {
  onHover: (openTime: number | null) => void;
  onFollow: (following: boolean) => void;
  onNeedHistory: () => void;
}

/** What part of time is in view, ms; `following`: the newest candle is in view. */
export interface View {
  from: number;
  to: number;
  following: boolean;
}

export class CandleChart {
  readonly #element: HTMLElement;
  readonly #market: Market;
  readonly #events: ChartEvents;
  readonly #chart: IChartApi;
  readonly #candles: ISeriesApi<"Candlestick">;
  readonly #volume: ISeriesApi<"Histogram">;
  readonly #markers: ISeriesMarkersPluginApi<Time>;
  #lastPrice: IPriceLine | null = null;
  #slots: Slot[] = [];
  #drawn = "";
  #decimals = 0;
  #marked = "";
  #palette: Palette;
  #zone: Zone = "utc";
  #following = true;

  constructor(element: HTMLElement, market: Market, events: ChartEvents) {
    this.#element = element;
    this.#market = market;
    this.#events = events;
    this.#palette = readPalette(element);
    this.#chart = createChart(element, {
      autoSize: true,
      timeScale: { rightOffset: MARGIN, barSpacing: BAR_SPACING, minBarSpacing: 0.6 },
    });
    this.#candles = this.#chart.addSeries(CandlestickSeries, { priceLineVisible: false, lastValueVisible: false }, 0);
    this.#volume = this.#chart.addSeries(
      HistogramSeries,
      { priceFormat: { type: "volume" }, lastValueVisible: false },
      1,
    );
    this.#volume.applyOptions({ priceLineVisible: false });
    // Room for the legend, which takes three lines on a narrow screen.
    this.#candles
      .priceScale()
      .applyOptions({ scaleMargins: { top: element.clientWidth < 600 ? 0.22 : 0.12, bottom: 0.06 } });
    this.#volume.priceScale().applyOptions({ scaleMargins: { top: 0.1, bottom: 0 } });
    this.#markers = createSeriesMarkers(this.#candles, []);
    this.#chart.panes()[0]?.setStretchFactor(5);
    this.#chart.panes()[1]?.setStretchFactor(1);
    this.#style();
    this.#listen();
  }

  /** Draws what changed since the last call. */
  apply(changes: Changes): void {
    if (changes.reset) return this.#redraw();
    for (const row of changes.rows) this.#update(row);
    if (changes.rows.length === 0) return;
    this.#mark();
    this.#tagLast();
  }

  /** Takes the colours of the current theme and redraws. */
  setTheme(): void {
    this.#palette = readPalette(this.#element);
    this.#style();
    this.#redraw();
  }

  setZone(zone: Zone): void {
    this.#zone = zone;
    this.#style();
  }

  get view(): View | null {
    const range = this.#chart.timeScale().getVisibleLogicalRange();
    const first = this.#slots[0];
    if (range === null || first === undefined) return null;
    return { from: this.#timeAt(range.from), to: this.#timeAt(range.to), following: this.#following };
  }

  /** Shows the same span of time in another timeframe, or its right end where the span makes no sensible picture. */
  show(view: View): void {
    const last = this.#slots.length - 1;
    if (last < 0) return;
    const right = view.following ? last + MARGIN : this.#indexOf(view.to);
    const count = (view.to - view.from) / lengthOf(this.#market.tf);
    const width = Math.min(count >= FEWEST && count <= MOST ? count : this.#defaultCount, this.#fill);
    this.#chart.timeScale().setVisibleLogicalRange({ from: right - width, to: right });
  }

  /** At once: the library's animated scroll is cut short by the next live update (seen with 5.2.1). */
  goLive(): void {
    this.#chart.timeScale().scrollToPosition(MARGIN, false);
  }

  pan(places: number): void {
    const scale = this.#chart.timeScale();
    scale.scrollToPosition(scale.scrollPosition() + places, false);
  }

  zoom(by: number): void {
    const range = this.#chart.timeScale().getVisibleLogicalRange();
    if (range === null) return;
    const width = (range.to - range.from) * (by > 0 ? 0.8 : 1.25);
    this.#chart.timeScale().setVisibleLogicalRange({ from: range.to - width, to: range.to });
  }

  screenshot(): HTMLCanvasElement {
    return this.#chart.takeScreenshot();
  }

  remove(): void {
    this.#chart.remove();
  }

  #listen(): void {
    this.#chart.subscribeCrosshairMove(({ time }) => {
      this.#events.onHover(typeof time === "number" ? time * 1000 : null);
    });
    this.#chart.timeScale().subscribeVisibleLogicalRangeChange((range) => this.#moved(range));
  }

  #moved(range: LogicalRange | null): void {
    if (range === null || this.#slots.length === 0) return;
    const following = follows(range, this.#slots.length - 1);
    if (following !== this.#following) {
      this.#following = following;
      this.#events.onFollow(following);
    }
    if (range.from < HISTORY_AHEAD) this.#events.onNeedHistory();
  }

  /** Sets all points. The same view stays at the newest candle, or where somebody has scrolled to; another one starts
   * at the newest. */
  #redraw(): void {
    const {
      instrument,
      tf,
      table: { rows },
    } = this.#market;
    const range = this.#chart.timeScale().getVisibleLogicalRange();
    const anchor = range === null ? undefined : this.#slots[clamp(Math.ceil(range.from), this.#slots.length)];
    const anchorIndex = anchor === undefined ? 0 : this.#slots.indexOf(anchor);
    const following = this.#following; // setting points moves the view, and that is no wish of anybody
    const lastIndex = this.#slots.length - 1;
    const same = this.#drawn === `${instrument}@${tf}` && anchor !== undefined && rows.length > 0;
    this.#slots = slotsOf(rows, tf);
    this.#setPrecision(rows);
    this.#candles.setData(this.#slots.map((slot) => candlePoint(slot, this.#settling(slot), this.#palette)));
    this.#volume.setData(this.#slots.map((slot) => volumePoint(slot, this.#palette)));
    this.#mark();
    this.#tagLast();
    if (rows.length === 0) return;
    const by = same ? this.#indexOf(anchor.time) - anchorIndex : 0;
    if (same && range !== null) {
      const view = relaid(range, following, lastIndex, this.#slots.length - 1, by);
      this.#chart.timeScale().setVisibleLogicalRange(view);
    } else this.#startView();
    this.#drawn = `${instrument}@${tf}`;
  }

  #startView(): void {
    const last = this.#slots.length - 1;
    this.#chart.timeScale().applyOptions({ timeVisible: !isDaily(this.#market.tf) });
    const count = Math.min(this.#defaultCount, this.#fill);
    this.#chart.timeScale().setVisibleLogicalRange({ from: last + MARGIN - count, to: last + MARGIN });
    this.#candles.priceScale().applyOptions({ autoScale: true });
  }

  /** Places that the candles held can fill: a young tape is drawn larger, not pressed against the right edge. */
  get #fill(): number {
    return Math.max(YOUNG, this.#slots.length + 2 * MARGIN);
  }

  get #defaultCount(): number {
    return Math.max(FEWEST, Math.floor((this.#chart.timeScale().width() || this.#element.clientWidth) / BAR_SPACING));
  }

  #update(row: Candle): void {
    const last = this.#slots.at(-1);
    if (last === undefined) return this.#redraw();
    if (row.open_time > last.time) return this.#append(row, last.time);
    const index = this.#indexOf(row.open_time);
    const slot = this.#slots[index];
    if (slot === undefined || slot.time !== row.open_time) return this.#redraw(); // a hole wider than was drawn
    slot.row = row;
    this.#draw(slot, slot !== last);
  }

  #append(row: Candle, lastTime: number): void {
    const fresh = [...holeBetween(lastTime, row.open_time, this.#market.tf), { time: row.open_time, row }];
    for (const slot of fresh) {
      this.#slots.push(slot);
      this.#draw(slot, false);
    }
    // The candle that is no longer among the newest has its final look now.
    for (const slot of this.#slots.slice(-fresh.length - 3, -fresh.length)) this.#draw(slot, true);
  }

  #draw(slot: Slot, historical: boolean): void {
    this.#candles.update(candlePoint(slot, this.#settling(slot), this.#palette), historical);
    this.#volume.update(volumePoint(slot, this.#palette), historical);
  }

  #settling(slot: Slot): boolean {
    return slot.row !== null && this.#market.table.isSettling(slot.time);
  }

  /** A square under the first candle of each incomplete run. */
  #mark(): void {
    const markers: SeriesMarker<Time>[] = [];
    let inside = false;
    for (const slot of this.#slots) {
      const lacking = slot.row !== null && isIncomplete(slot.row, this.#settling(slot));
      if (lacking && !inside) {
        markers.push({
          time: chartTime(slot.time),
          position: "belowBar",
          shape: "square",
          color: this.#palette.warn,
          size: 0.4,
        });
      }
      if (slot.row !== null) inside = lacking;
    }
    const key = `${this.#palette.warn}${markers.map(({ time }) => time)}`;
    if (key !== this.#marked) this.#markers.setMarkers(markers);
    this.#marked = key;
  }

  /** The last price on the axis: a line of our own, for the library's label has too little contrast. */
  #tagLast(): void {
    const row = this.#market.table.last;
    if (row === undefined || row.close === null) {
      if (this.#lastPrice !== null) this.#candles.removePriceLine(this.#lastPrice);
      this.#lastPrice = null;
      return;
    }
    const { tagUp, tagDown, tagText } = this.#palette;
    const color = isUp(row) ? tagUp : tagDown;
    const options = { price: Number(row.close), color, axisLabelColor: color, axisLabelTextColor: tagText };
    if (this.#lastPrice !== null) this.#lastPrice.applyOptions(options);
    else this.#lastPrice = this.#candles.createPriceLine({ ...options, lineStyle: LineStyle.Dotted, lineWidth: 1 });
  }

  #setPrecision(rows: readonly Candle[]): void {
    const decimals = decimalsOf(rows.slice(-200).flatMap((row) => [row.open, row.high, row.low, row.close]));
    if (decimals === this.#decimals) return;
    this.#decimals = decimals;
    const priceFormat = { type: "price", precision: decimals, minMove: 10 ** -decimals } as const;
    this.#candles.applyOptions({ priceFormat });
  }

  #indexOf(time: number): number {
    let low = 0;
    let high = this.#slots.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#slots[middle]?.time ?? 0) < time) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #timeAt(logical: number): number {
    const index = clamp(Math.round(logical), this.#slots.length);
    const beyond = Math.round(logical) - index;
    return (this.#slots[index]?.time ?? 0) + beyond * lengthOf(this.#market.tf);
  }

  #style(): void {
    const { background, text, grid, border, crosshair, label, up, down, font } = this.#palette;
    const at = (time: Time): number => Number(time) * 1000;
    this.#chart.applyOptions({
      layout: {
        background: { type: "solid" as ColorType.Solid, color: background },
        textColor: text,
        fontFamily: font,
        fontSize: 11,
        attributionLogo: true,
        panes: { separatorColor: border, separatorHoverColor: grid },
      },
      grid: { vertLines: { color: grid }, horzLines: { color: grid } },
      crosshair: {
        mode: CrosshairMode.Normal,
        vertLine: { color: crosshair, labelBackgroundColor: label },
        horzLine: { color: crosshair, labelBackgroundColor: label },
      },
      rightPriceScale: { borderVisible: false, minimumWidth: 64 },
      timeScale: {
        borderColor: border,
        tickMarkFormatter: (time: Time, weight: TickMarkType) =>
          tickLabel(at(time), WEIGHTS[weight], this.#market.tf, this.#zone),
      },
      localization: {
        timeFormatter: (time: Time) => candleTime(at(time), this.#market.tf, this.#zone),
      },
    });
    this.#candles.applyOptions({ upColor: up, downColor: down, borderVisible: true });
  }
}

function clamp(index: number, length: number): number {
  return Math.min(Math.max(index, 0), length - 1);
}
