/**
 * A page with a plain EventSource whose server is killed and restarted: `node eventsource.mjs BASE_URL OUTPUT_FOLDER CHANNELS KILLS`.
 * Whoever runs it kills the server; the page reconnects by itself, `KILLS` times, and must have each trade exactly once.
 */

import { drive } from "./chromium.mjs";

const [baseUrl, folder, channels, kills] = process.argv.slice(2);
const WAIT_MS = Number(process.env.TAPEWICK_TEST_WAIT_MS ?? 60_000);

await drive(folder, async (run) => {
  const page = await run.open(`${baseUrl}/docs`, {}, /./);
  await page.evaluate(follow, `/v1/sse?snapshot=1&channels=${channels}`);
  let seen = await page.evaluate(held);
  const deadline = Date.now() + WAIT_MS * (1 + Number(kills));
  while (seen.opened < 1 + Number(kills) || seen.since < 20) {
    if (Date.now() > deadline) throw new Error(`never saw all: ${JSON.stringify(seen)}`);
    await page.waitForTimeout(100);
    seen = await page.evaluate(held);
  }
  run.result.states.seen = seen;
  run.check("each_trade_once", seen.holes.length === 0 && seen.trades > 20);
  run.check("no_gap", seen.gaps === 0);
  run.check("one_candle_per_pos", seen.conflicts === 0);
});

/** In the page: keeps what an EventSource brings, the way any page would. */
function follow(address) {
  const kept = { opened: 0, gaps: 0, since: 0, seqs: [], candles: {}, conflicts: 0 };
  window.kept = kept;
  const source = new EventSource(address);
  const take = (message) => {
    const frame = JSON.parse(message.data);
    kept.since += 1;
    for (const row of frame.data) {
      if (frame.ch.startsWith("trade@")) kept.seqs.push(row.seq);
      else if (row.state !== "open") {
        const key = `${row.open_time} ${row.pos}`;
        const text = JSON.stringify(row);
        if ((kept.candles[key] ??= text) !== text) kept.conflicts += 1;
      }
    }
  };
  source.onopen = () => {
    kept.opened += 1;
    kept.since = 0;
  };
  source.addEventListener("snapshot", take);
  source.addEventListener("event", take);
  source.addEventListener("gap", () => {
    kept.gaps += 1;
  });
}

/** In the page: what was kept, in short. */
function held() {
  const { seqs, opened, gaps, since, conflicts } = window.kept;
  const holes = seqs.filter((seq, i) => i > 0 && seq !== seqs[i - 1] + 1).slice(0, 10);
  return { opened, gaps, since, conflicts, holes, trades: seqs.length };
}
