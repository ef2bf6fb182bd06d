import { describe, expect, it } from "vitest";
import library from "../../node_modules/lightweight-charts/dist/lightweight-charts.production.mjs?raw";
import css from "../theme.css?raw";

function variables(selector: string): Record<string, string> {
  const start = css.indexOf(`${selector} {`);
  const block = css.slice(start, css.indexOf("}", start));
  return Object.fromEntries([...block.matchAll(/--([\w-]+): (#\w+);/g)].map(([, name, value]) => [name, value]));
}

function luminance(hex: string): number {
  const channels = [1, 3, 5].map((at) => Number.parseInt(hex.slice(at, at + 2), 16) / 255);
  const [r = 0, g = 0, b = 0] = channels.map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function contrast(a: string, b: string): number {
  const [dark = 0, light = 0] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (light + 0.05) / (dark + 0.05);
}

/** What a see-through colour, `part` of it, looks like on a ground. */
function blended(colour: string, part: number, ground: string): string {
  const alpha = (Number.parseInt(colour.slice(7, 9), 16) / 255) * part;
  const channels = [1, 3, 5].map((at) => {
    const [over, under] = [colour, ground].map((hex) => Number.parseInt(hex.slice(at, at + 2), 16));
    return Math.round(alpha * (over ?? 0) + (1 - alpha) * (under ?? 0));
  });
  return `#${channels.map((channel) => channel.toString(16).padStart(2, "0")).join("")}`;
}

const TEXTS = ["text", "text-2", "text-3", "up-text", "down-text", "accent-text"];

describe.each([':root[data-theme="dark"]', ':root[data-theme="light"]'])("%s", (selector) => {
  const colours = variables(selector);

  it.each(TEXTS)("has readable %s on every surface", (name) => {
    for (const surface of ["panel", "chart", "raised"]) {
      expect(contrast(colours[name] ?? "", colours[surface] ?? ""), surface).toBeGreaterThanOrEqual(4.5);
    }
  });

  it.each([
    ["down-faint", ["down-text", "text", "text-2"]],
    ["up-faint", ["up-text", "text", "text-2"]],
  ])("has readable figures on the %s bars of the order book", (bar, texts) => {
    for (const name of texts) {
      expect(contrast(colours[name] ?? "", blended(colours[bar] ?? "", 0.55, colours.panel ?? "")), name).toBeGreaterThanOrEqual(4.5);
    }
  });

  it("has readable labels", () => {
    expect(contrast(colours["accent-text"] ?? "", colours["accent-ground"] ?? "")).toBeGreaterThanOrEqual(4.5);
    for (const tag of ["tag-up", "tag-down"]) {
      expect(contrast(colours["tag-text"] ?? "", colours[tag] ?? ""), tag).toBeGreaterThanOrEqual(4.5);
    }
  });

  it("has visible shapes", () => {
    for (const shape of ["up", "down", "warn"]) {
      expect(contrast(colours[shape] ?? "", colours.chart ?? ""), shape).toBeGreaterThanOrEqual(2.995);
    }
  });
});

// The chart library adds one <style> element for its logo. The server's security header allows it by this hash;
// when an upgrade changes the text, header and test change together.
it("knows the one inline style of the chart library", async () => {
  const styles = library.match(/a#tv-attr-logo\{[^`"']*\}/g) ?? [];
  expect(styles).toHaveLength(1);
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(styles[0]));
  const hash = btoa(String.fromCharCode(...new Uint8Array(digest)));
  expect(hash).toBe("3pRED1tOXas1FXFoPb9TGCjmYe9XQsmO9OV23khV2nY=");
});
