import { describe, expect, it } from "vitest";
import { follows, relaid } from "../viewport";

describe("the view when candles are laid out anew", () => {
  const live = { from: 20, to: 65 }; // the newest at 59, six places free

  it("stays at the newest for whoever followed, also when history is filled in between", () => {
    const after = relaid(live, follows(live, 59), 59, 559, 0);
    expect(after).toEqual({ from: 520, to: 565 });
    expect(follows(after, 559)).toBe(true);
  });

  it("stays where somebody has scrolled to", () => {
    const back = { from: 5, to: 50 };
    expect(relaid(back, follows(back, 59), 59, 559, 0)).toEqual(back);
    expect(relaid(back, follows(back, 59), 59, 559, 500)).toEqual({ from: 505, to: 550 });
  });

  it("moves with the candles where older ones come before them", () => {
    expect(relaid(live, true, 59, 359, 300)).toEqual(relaid(live, false, 59, 359, 300));
  });
});
