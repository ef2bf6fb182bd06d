import { describe, expect, it } from "vitest";
import { Health } from "../health";

describe("connection state", () => {
  it("goes live, stale, and live again", () => {
    const health = new Health(0);
    expect(health.read(0, true).state).toBe("reconnecting");
    health.phase("open", "", 1_000);
    expect(health.read(1_500, true).state).toBe("live");
    expect(health.read(11_500, true).state).toBe("stale");
    health.frame(11_600, []);
    expect(health.read(11_700, true).state).toBe("live");
  });

  it("is patient with a market that is quiet by nature", () => {
    const health = new Health(0);
    health.phase("open", "", 0);
    for (let at = 20_000; at <= 100_000; at += 20_000) health.frame(at, []);
    expect(health.read(135_000, true).state).toBe("live");
    expect(health.read(141_000, true).state).toBe("stale");
  });

  it("reconnects for a while, then says offline; at once when the browser knows", () => {
    const health = new Health(0);
    health.phase("open", "", 0);
    health.phase("waiting", "going away", 5_000);
    health.phase("connecting", "", 6_000);
    expect(health.read(7_000, true)).toMatchObject({ state: "reconnecting", detail: "going away" });
    expect(health.read(7_000, false).state).toBe("offline");
    expect(health.read(21_000, true).state).toBe("offline");
  });

  it("is stale at once when the source behind it is gone, and says so", () => {
    const health = new Health(0);
    health.phase("open", "", 0);
    const row = { kind: "stream_health", source: "binance:spot", instrument: null };
    health.conditions([{ ...row, state: "disconnected", detail: "cannot be reached" }]);
    health.frame(50, []);
    expect(health.read(100, true)).toMatchObject({
      state: "stale",
      detail: "binance:spot is disconnected: cannot be reached",
    });
    health.conditions([{ ...row, state: "connected" }]);
    expect(health.read(200, true)).toMatchObject({ state: "live", detail: "" });
  });

  it("forgets the source of another instrument", () => {
    const health = new Health(0);
    health.phase("open", "", 0);
    health.conditions([{ kind: "stream_health", source: "s", instrument: "a:B", state: "stale", detail: "" }]);
    expect(health.read(0, true).detail).toBe("s is stale");
    health.reset(0);
    expect(health.read(0, true).state).toBe("live");
  });

  it("is offline when the server has refused", () => {
    const health = new Health(0);
    health.phase("refused", "not authenticated", 0);
    expect(health.read(1, true).state).toBe("offline");
  });
});

describe("figures", () => {
  it("takes the median of latencies on the server's clock", () => {
    const health = new Health(0);
    health.phase("open", "", 0);
    health.clock(100);
    health.frame(1_000, [1_090, 1_080, 100]);
    expect(health.read(1_000, true).latency).toBe(20);
  });

  it("counts messages per second over five seconds", () => {
    const health = new Health(0);
    health.phase("open", "", 0);
    for (let at = 0; at < 10_000; at += 20) health.frame(at, []);
    expect(health.read(10_000, true).rate).toBeGreaterThan(45);
    expect(health.read(10_000, true).rate).toBeLessThan(55);
    expect(health.read(16_000, true).rate).toBe(0);
  });

  it("forgets the pace of another instrument", () => {
    const health = new Health(0);
    health.phase("open", "", 0);
    health.frame(90_000, [1]);
    health.reset(90_000);
    expect(health.read(90_000, true).latency).toBeNull();
    expect(health.read(101_000, true).state).toBe("stale");
  });
});
