/** Candle rows as chart points. The only place where decimal strings become numbers, and only to be drawn. */

import type { CandlestickData, HistogramData, Time, UTCTimestamp, WhitespaceData } from "lightweight-charts";
import { isIncomplete } from "./candles";
import type { Candle } from "./model";
import type { Palette } from "./palette";
import type { Slot } from "./slots";

export type CandlePoint = CandlestickData<Time> | WhitespaceData<Time>;
export type VolumePoint = HistogramData<Time> | WhitespaceData<Time>;

export function chartTime(ms: number): UTCTimestamp {
  return Math.floor(ms / 1000) as UTCTimestamp;
}

export function isUp(row: Candle): boolean {
  return Number(row.close) >= Number(row.open);
}

/** Open candles are hollow, incomplete ones faint, all others solid. */
export function candlePoint(slot: Slot, settling: boolean, palette: Palette): CandlePoint {
  const { row } = slot;
  const time = chartTime(slot.time);
  if (row === null || row.open === null) return { time };
  const up = isUp(row);
  const solid = up ? palette.up : palette.down;
  const faint = up ? palette.upFaint : palette.downFaint;
  const lacking = isIncomplete(row, settling);
  return {
    time,
    open: Number(row.open),
    high: Number(row.high),
    low: Number(row.low),
    close: Number(row.close),
    color: row.state === "open" || lacking ? faint : solid,
    borderColor: lacking ? faint : solid,
    wickColor: lacking ? faint : solid,
  };
}

export function volumePoint(slot: Slot, palette: Palette): VolumePoint {
  const { row } = slot;
  const time = chartTime(slot.time);
  if (row === null || row.open === null) return { time };
  return { time, value: Number(row.volume), color: isUp(row) ? palette.upSoft : palette.downSoft };
}
