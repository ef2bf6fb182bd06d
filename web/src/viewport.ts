/** Which part of the time axis is in view, in places from the first candle held; and what becomes of it. */

export interface Range {
  from: number;
  to: number;
}

/** Whether the newest candle, at place `last`, is in view. */
export function follows(range: Range, last: number): boolean {
  return range.to >= last;
}

/**
 * The view after the candles were laid out anew, where the newest stood at `before` and stands at `after`. Who followed
 * goes on to follow, at the same distance from it, however much was filled in; who had scrolled away keeps what is at
 * the left edge, which has moved `by` places.
 */
export function relaid(range: Range, following: boolean, before: number, after: number, by: number): Range {
  const shift = following ? after - before : by;
  return { from: range.from + shift, to: range.to + shift };
}
