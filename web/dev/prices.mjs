/** Invented candles: a price that is a pure function of time, so that every page of history agrees with every other. */

const LENGTHS = { s: 1e3, m: 6e4, h: 36e5, d: 864e5, w: 6048e5, M: 2592e6 };

export function lengthOf(tf) {
  return Number.parseInt(tf, 10) * LENGTHS[tf.at(-1)];
}

function noise(n) {
  const x = Math.sin(n * 127.1) * 43758.5453;
  return x - Math.floor(x);
}

export function priceAt(ms, level) {
  const t = ms / 6e4;
  const waves =
    Math.sin(t / 9) * 0.9 +
    Math.sin(t / 47) * 2.6 +
    Math.sin(t / 391) * 9 +
    Math.sin(t / 5003) * 40 +
    Math.sin(t / 71003) * 110;
  const smooth = noise(Math.floor(t * 6)) * (1 - ((t * 6) % 1)) + noise(Math.floor(t * 6) + 1) * ((t * 6) % 1);
  return level * (1 + (waves + smooth * 3) / 2500);
}

export function candle(instrument, tf, open, now, level) {
  const length = lengthOf(tf);
  const end = Math.min(open + length, now);
  const samples = Array.from({ length: 25 }, (_, index) => priceAt(open + ((end - open) * index) / 24, level));
  const isOpen = open + length > now;
  const state = isOpen ? "open" : open + length > now - 6e4 ? "closed" : "final";
  const lacking = noise(open / length) > 0.993 && !isOpen;
  return {
    instrument: instrument.id,
    tf,
    open_time: open,
    open: samples[0].toFixed(2),
    high: Math.max(...samples).toFixed(2),
    low: Math.min(...samples).toFixed(2),
    close: samples.at(-1).toFixed(2),
    volume: (noise(open / length + 1) * 40 + 3).toFixed(5),
    trades: 120,
    state: lacking ? "closed" : state,
    rev: lacking ? 1 : 0,
    complete: state === "final" && !lacking,
    pos: 1,
    origin: "tape",
  };
}

/** Up to `limit` candles that open before `end`; history starts `depth` candles ago, a few minutes have no trades. */
export function candles(instrument, tf, limit, end, now, level, depth = 2400) {
  const length = lengthOf(tf);
  const newest = Math.floor((Math.min(end, now + 1) - 1) / length) * length;
  const oldest = Math.max(newest - (limit - 1) * length, Math.floor(now / length) * length - depth * length);
  const rows = [];
  for (let open = oldest; open <= newest; open += length) {
    if (noise(open / length + 7) < 0.994 || open + 3 * length > now)
      rows.push(candle(instrument, tf, open, now, level));
  }
  return rows;
}
