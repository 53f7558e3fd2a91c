/** Draws a figure's JSON line as a picture in docs/: lines over a logarithmic ground, both ways. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { root } from '../run.mjs';

const [width, height] = [720, 420];
const frame = { left: 70, right: 20, top: 40, bottom: 110 };
const colours = ['#0b6e99', '#c2571a', '#6b7280', '#2f855a'];

/**
 * Writes `docs/<file>`.
 *
 * @param {{ file: string, title: string, at: number[], series: { key: string, label: string }[] }} plot
 * @param {Record<string, number>} line a figure's numbers: of each series one for each place, named `<key>_at_<place>`
 */
export function draw(plot, line) {
  writeFileSync(join(root, 'docs', plot.file), picture(plot, line));
}

/** The picture as SVG. */
export function picture({ title, at, series }, line) {
  const values = series.flatMap(({ key }) => at.map((place) => line[`${key}_at_${place}`]));
  const across = scale(at, frame.left, width - frame.right);
  const up = scale(values, height - frame.bottom, frame.top);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="12">`,
    `<rect width="${width}" height="${height}" fill="#ffffff"/>`,
    `<text x="${frame.left}" y="22" font-size="14">${title}</text>`,
    ...up.decades.map((value) => ruled(up.place(value), frame.left, width - frame.right) + label(frame.left - 8, up.place(value) + 4, short(value), 'end')),
    ...at.map((place) => label(across.place(place), height - frame.bottom + 18, place.toLocaleString('en'), 'middle')),
    ...series.flatMap(({ key, label: name }, index) => {
      const points = at.map((place) => [across.place(place), up.place(line[`${key}_at_${place}`])].map((number) => number.toFixed(1)));
      const colour = colours[index % colours.length];
      const [x, y] = [frame.left + (index % 2) * 320, height - frame.bottom + 50 + (index >> 1) * 24];
      return [
        `<polyline fill="none" stroke="${colour}" stroke-width="2" points="${points.map((point) => point.join(',')).join(' ')}"/>`,
        ...points.map(([cx, cy]) => `<circle cx="${cx}" cy="${cy}" r="3" fill="${colour}"/>`),
        `<rect x="${x}" y="${y - 9}" width="16" height="4" fill="${colour}"/>${label(x + 24, y - 2, name, 'start')}`,
      ];
    }),
    '</svg>\n',
  ].join('\n');
}

/** Powers of ten around some values, and where a value lies between two ends. */
function scale(values, from, to) {
  const low = Math.floor(Math.log10(Math.min(...values)));
  const high = Math.ceil(Math.log10(Math.max(...values)));
  const decades = Array.from({ length: high - low + 1 }, (_, index) => 10 ** (low + index));
  return { decades, place: (value) => from + ((Math.log10(value) - low) / (high - low)) * (to - from) };
}

function ruled(y, from, to) {
  return `<line x1="${from}" x2="${to}" y1="${y}" y2="${y}" stroke="#e5e7eb"/>`;
}

function label(x, y, text, anchor) {
  return `<text x="${x}" y="${y}" text-anchor="${anchor}">${text}</text>`;
}

function short(value) {
  const [unit, by] = [['G', 1e9], ['M', 1e6], ['k', 1e3]].find(([, size]) => value >= size) ?? ['', 1];
  return `${value / by}${unit}`;
}
