/** Colours of the canvas, read from the stylesheet: theme.css is the only place that names a colour. */

export interface Palette {
  background: string;
  text: string;
  grid: string;
  border: string;
  up: string;
  down: string;
  upSoft: string;
  downSoft: string;
  upFaint: string;
  downFaint: string;
  tagUp: string;
  tagDown: string;
  tagText: string;
  warn: string;
  crosshair: string;
  label: string;
  font: string;
}

const VARIABLES: Record<keyof Palette, string> = {
  background: "--chart",
  text: "--text-2",
  grid: "--grid",
  border: "--line",
  up: "--up",
  down: "--down",
  upSoft: "--up-soft",
  downSoft: "--down-soft",
  upFaint: "--up-faint",
  downFaint: "--down-faint",
  tagUp: "--tag-up",
  tagDown: "--tag-down",
  tagText: "--tag-text",
  warn: "--warn",
  crosshair: "--crosshair",
  label: "--label",
  font: "--font",
};

export function readPalette(element: Element): Palette {
  const style = getComputedStyle(element);
  const entries = Object.entries(VARIABLES).map(([name, variable]) => [name, style.getPropertyValue(variable).trim()]);
  return Object.fromEntries(entries) as Palette;
}
