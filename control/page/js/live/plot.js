// A plot of rates over time, and a table of its lines beside it, for readers who do not see the plot: the values now, or at the
// pointer, and the highest ones.

import { el, patch, rate } from '../dom.js';

/** Height in pixels, as `.plot` in app.css. */
const HEIGHT = 110;
/** Patterns of lines, as `.dash-1` to `.dash-5` in app.css: colours alone do not distinguish lines. There are as many colours. */
const DASHES = [[], [7, 3], [2, 2], [10, 3, 2, 3], [4, 6]];
/** Rows of the table that are visible without scrolling. */
const ROWS = DASHES.length;
/** Steps of the axis of rates: whole frames. */
const STEPS = [...Array(13).keys()].flatMap((power) => [1, 2, 5].map((factor) => factor * 10 ** power));

const minutes = new Intl.DateTimeFormat('sv', { timeStyle: 'short' });
const seconds = new Intl.DateTimeFormat('sv', { timeStyle: 'medium' });

/** The pattern and the colour of a line, from 0: twenty-five lines differ. */
const look = (line) => ({ colour: line % ROWS, dash: (line + Math.floor(line / ROWS)) % ROWS });

export class Plot {
  #title;
  #window;
  #canvas;
  #table = el('div', { class: 'plot-table' });
  #uPlot = null;
  #names = '';
  #times = [];
  #lines = [];
  #colours = null;

  /** `window`: the seconds that the plot shows. */
  constructor({ title, window }) {
    this.#title = title;
    this.#window = window;
    this.#canvas = el('div', { class: 'plot', role: 'img', 'aria-label': `Plot: ${title}. The table below has its numbers.` });
    this.element = el('section', {}, el('h2', { text: title }), this.#canvas, this.#table);
    this.#drawTable();
  }

  /** Draws with the library `uPlot`. `times`: seconds since 1970, ascending. `lines`: `[[name, values], …]`; a null is a gap. */
  draw(uPlot, times, lines) {
    this.#times = times;
    this.#lines = lines;
    this.#drawTable();
    const width = Math.floor(this.#canvas.clientWidth);
    // It is hidden.
    if (width === 0) return;
    const data = [times, ...lines.map(([, values]) => values)];
    const names = lines.map(([name]) => name).join('\n');
    if (this.#names !== names || this.#uPlot === null) {
      this.destroy();
      this.#colours ??= this.#readColours();
      this.#names = names;
      this.#uPlot = new uPlot(this.#options(uPlot, width), data, this.#canvas);
      return;
    }
    if (this.#uPlot.width !== width) this.#uPlot.setSize({ width, height: HEIGHT });
    this.#uPlot.setData(data);
  }

  /** Draws with the colours of another scheme. */
  recolour() {
    this.#colours = this.#readColours();
    this.#uPlot?.redraw(false);
  }

  destroy() {
    this.#uPlot?.destroy();
    this.#uPlot = null;
  }

  #options(uPlot, width) {
    const axis = { stroke: () => this.#colours.text, grid: { stroke: () => this.#colours.grid, width: 1 }, ticks: { show: false }, font: '11px system-ui, sans-serif' };
    const series = this.#lines.map((_, line) => {
      const { colour, dash } = look(line);
      return { stroke: () => this.#colours.lines[colour], dash: DASHES[dash], width: 1.5, points: { show: false }, spanGaps: false };
    });
    return {
      width,
      height: HEIGHT,
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { show: false }, sync: { key: uPlot.sync('traffic').key } },
      hooks: { setCursor: [() => this.#drawTable()] },
      padding: [8, 14, 0, 0],
      scales: { x: { range: (_, __, end) => [end - this.#window, end] }, y: { range: (_, __, most) => [0, Math.max(most ?? 0, 4) * 1.1] } },
      axes: [
        { ...axis, size: 20, space: 60, values: (_, ticks) => ticks.map((at) => minutes.format(at * 1000)) },
        { ...axis, size: 62, space: 26, incrs: STEPS, values: (_, ticks) => ticks.map(rate) },
      ],
      series: [{}, ...series],
    };
  }

  #drawTable() {
    const at = this.#uPlot?.cursor.idx ?? null;
    const rows = this.#lines.map(([name, values], line) => {
      const { colour, dash } = look(line);
      const most = values.reduce((highest, value) => (value === null ? highest : Math.max(highest ?? 0, value)), null);
      return el('tr', {},
        el('th', { scope: 'row', title: name }, el('span', { class: `mark line-${colour + 1} dash-${dash + 1}` }), name),
        el('td', { class: 'number', text: rate(values.at(at ?? -1) ?? null) }),
        el('td', { class: 'number', text: rate(most) }));
    });
    const head = ['Line', at === null ? 'Now' : seconds.format(this.#times[at] * 1000), 'Highest'];
    patch(this.#table, el('table', { 'aria-label': `${this.#title}, frames a second` },
      el('thead', {}, el('tr', {}, head.map((title, column) => el('th', { scope: 'col', class: column === 0 ? null : 'number', text: title })))),
      el('tbody', {}, rows)));
    // More rows than are visible: the keyboard scrolls, too.
    const scrolls = { tabindex: '0', role: 'region', 'aria-label': this.#title };
    for (const [name, value] of Object.entries(scrolls)) {
      if (rows.length > ROWS) this.#table.setAttribute(name, value);
      else this.#table.removeAttribute(name);
    }
  }

  /** The colours of the shown scheme: a canvas does not know custom properties. */
  #readColours() {
    const probe = el('span', { hidden: true });
    this.element.append(probe);
    const read = (name) => {
      probe.style.color = `var(${name})`;
      return getComputedStyle(probe).color;
    };
    const colours = { text: read('--text-soft'), grid: read('--line'), lines: DASHES.map((_, line) => read(`--line-${line + 1}`)) };
    probe.remove();
    return colours;
  }
}
