/** A book as people read it: each level with what lies between it and the best one, the spread, the middle. */

import { decimalOf, mantissaOf, scaleOf } from "./exact";
import type { Book } from "./model";

export interface LadderRow {
  price: string;
  size: string;
  /** Sizes from the best level to this one. */
  total: string;
  /** `total` as a part of the larger side's, 0 to 1. */
  depth: number;
}

export interface Ladder {
  /** Best first. */
  asks: LadderRow[];
  bids: LadderRow[];
  /** null unless both sides have a level. */
  spread: string | null;
  mid: string | null;
  /** The spread in hundredths of a percent of the middle. */
  points: number | null;
}

export function ladderOf({ asks, bids }: Book, levels: number): Ladder {
  const [up, down] = [asks.slice(0, levels), bids.slice(0, levels)];
  const sizeScale = Math.max(0, ...[...up, ...down].map(([, size]) => scaleOf(size)));
  const priceScale = Math.max(0, ...[...up, ...down].map(([price]) => scaleOf(price)));
  const sums = [up, down].map((side) => sumsOf(side, sizeScale));
  const most = Math.max(1, ...sums.map((side) => Number(side.at(-1) ?? 0n)));
  const [askRows, bidRows] = [up, down].map((side, at) =>
    side.map(([price, size], index) => {
      const total = sums[at]?.[index] ?? 0n;
      return {
        price: padded(price, priceScale),
        size: padded(size, sizeScale),
        total: decimalOf(total, sizeScale),
        depth: Number(total) / most,
      };
    }),
  ) as [LadderRow[], LadderRow[]];
  return { asks: askRows, bids: bidRows, ...between(up[0]?.[0], down[0]?.[0], priceScale) };
}

function sumsOf(side: readonly (readonly [string, string])[], scale: number): bigint[] {
  let sum = 0n;
  return side.map(([, size]) => {
    sum += mantissaOf(size, scale);
    return sum;
  });
}

/** The same digits, with the zeros that line up the decimal points. */
function padded(decimal: string, scale: number): string {
  return decimalOf(mantissaOf(decimal, scale), scale);
}

function between(
  ask: string | undefined,
  bid: string | undefined,
  scale: number,
): Pick<Ladder, "spread" | "mid" | "points"> {
  if (ask === undefined || bid === undefined) return { spread: null, mid: null, points: null };
  const [high, low] = [mantissaOf(ask, scale), mantissaOf(bid, scale)];
  const twice = high + low;
  return {
    spread: decimalOf(high - low, scale),
    mid: twice % 2n === 0n ? decimalOf(twice / 2n, scale) : decimalOf(twice * 5n, scale + 1),
    points: twice === 0n ? null : (Number(high - low) * 20_000) / Number(twice),
  };
}
