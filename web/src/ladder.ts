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

type Level = readonly [string, string];

/** Steps of prices that may be offered, as powers of ten of the finest one. */
const STEPS = 4;

/** What prices of a book can be grouped by, ascending; the first is the finest step there is: no grouping. `scale`:
 * digits after the point of its prices. */
export function stepsOf({ asks, bids }: Book, scale: number): string[] {
  const best = asks[0]?.[0] ?? bids[0]?.[0];
  const price = best === undefined ? 0n : mantissaOf(best, scale);
  return Array.from({ length: STEPS + 1 }, (_, power) => 10n ** BigInt(power))
    .filter((step) => step === 1n || step * 20n <= price)
    .map((step) => trimmed(decimalOf(step, scale)));
}

function trimmed(decimal: string): string {
  return decimal.includes(".") ? decimal.replace(/\.?0+$/, "") : decimal;
}

/** Digits after the point that the prices of a book have. */
export function priceScaleOf({ asks, bids }: Book): number {
  return Math.max(0, ...[...asks, ...bids].map(([price]) => scaleOf(price)));
}

/**
 * Levels whose prices are multiples of `step`, each with the exact sum of what lies in it: bids are counted downwards to
 * a multiple, asks upwards, so that nobody is shown a better price than there is. Unless the side is `whole`, it may go
 * on beyond the last level given, so that only a part of the last group is known: it is left out.
 */
export function groupedBy(side: readonly Level[], step: string, up: boolean, whole: boolean): Level[] {
  const scale = Math.max(scaleOf(step), ...side.map(([price]) => scaleOf(price)));
  const sizeScale = Math.max(0, ...side.map(([, size]) => scaleOf(size)));
  const width = mantissaOf(step, scale);
  const groups = new Map<bigint, bigint>();
  for (const [price, size] of side) {
    const above = mantissaOf(price, scale) + (up ? width - 1n : 0n);
    const place = above - (above % width);
    groups.set(place, (groups.get(place) ?? 0n) + mantissaOf(size, sizeScale));
  }
  const digits = scaleOf(step);
  const levels = [...groups].map(([place, size]): Level => {
    const price = decimalOf(place / 10n ** BigInt(scale - digits), digits);
    return [price, decimalOf(size, sizeScale)];
  });
  return whole || levels.length < 2 ? levels : levels.slice(0, -1);
}

/** The best `levels` of each side, grouped by `step` unless it is "". `depth`: levels that were asked for of each. */
export function ladderOf(book: Book, levels: number, step = "", depth = Number.POSITIVE_INFINITY): Ladder {
  const sides = [book.asks, book.bids].map((side, at) =>
    (step === "" ? side : groupedBy(side, step, at === 0, side.length < depth)).slice(0, levels),
  );
  const [up = [], down = []] = sides;
  const sizeScale = Math.max(0, ...[...up, ...down].map(([, size]) => scaleOf(size)));
  const priceScale = Math.max(0, ...[...up, ...down].map(([price]) => scaleOf(price)));
  const best = [book.asks[0]?.[0], book.bids[0]?.[0]] as const; // as they are: what is between them is never grouped
  const finest = Math.max(0, ...best.map((price) => scaleOf(price ?? "")));
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
  return { asks: askRows, bids: bidRows, ...between(...best, step === "" ? priceScale : finest) };
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
