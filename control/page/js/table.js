// A table for many rows: only the visible ones are elements. Rows have one height. Cells change in place.

import { el, setText } from './dom.js';
import { draggable } from './drag.js';

/** The order of texts, with numbers by their values. */
const { compare: compareTexts } = new Intl.Collator('en', { numeric: true });
/** Rows above and below the visible part that are elements as well. */
const SPARE = 8;
let tables = 0;

/**
 * Options:
 *   label      name for screen readers
 *   columns    [{ key, title, width, number, priority, value, cell, sort }]
 *              width: a CSS width, '80px' or 'minmax(120px, 1fr)'; number: right-aligned; priority 2 or 3: hidden below 900 or 600 px;
 *              value(row): the text, and the order if `sort` is not given; cell(row): a node instead of the text, made again when its
 *              row changes; sort: false, or a function (row) => number or text
 *   key        (row) => a unique text, which identifies the row in later `setRows`
 *   heading    (row) => a text for a line above the row, such as a comment, or null; only in the original order
 *   rowClass   (row) => classes of the row, such as 'dimmed'
 *   empty      text without rows
 *   reads      whether rows are read first: until the first `setRows`, the table says so
 *   onOpen     (row) => Enter or a double click
 *   onSelect   (rows) => the selection has changed
 *   onKey      (event, rows) => other keys on selected rows, such as Delete; return true if it was used
 *   tells      whether the table shows the texts of the selected row for which its columns have no room; true unless it is false
 *   canDrag    (row) => whether it can be dragged, in the original order
 *   onDrop     (rows, { before, after }) => rows were dragged before or after a row; with mouse or finger
 *
 * Put `table.element` into a parent with the class `fill`.
 */
export class Table {
  #options; #all = []; #items = []; #rows = []; #placeOf = new Map(); #selected = new Set(); #active = null; #anchor = null;
  #sort = null; #columns = []; #elements = new Map(); #grid; #body; #head; #empty; #id; #frame = 0; #height = 22; #isRead; #more;

  constructor(options) {
    this.#options = { key: (row) => row.key, empty: 'There is nothing here.', tells: true, ...options };
    this.#id = `table-${tables += 1}`;
    this.#body = el('div', { class: 'rows', role: 'rowgroup' });
    this.#head = el('div', { class: 'head', role: 'row', 'aria-rowindex': '1' });
    this.#isRead = !this.#options.reads;
    this.#empty = el('p', { class: 'empty', hidden: true });
    this.#grid = el('div', { class: 'grid', role: 'grid', tabindex: '0', 'aria-label': this.#options.label, 'aria-multiselectable': 'true' },
      el('div', { class: 'top-rows', role: 'rowgroup' }, this.#head), this.#body);
    this.#more = el('p', { class: 'more', hidden: true });
    // Beside the grid, because a grid has nothing but rows.
    this.element = el('div', { class: 'table' }, this.#grid, this.#empty, this.#more);
    this.#grid.addEventListener('scroll', () => this.#schedule(), { passive: true });
    this.#grid.addEventListener('keydown', (event) => this.#keydown(event));
    this.#body.addEventListener('click', (event) => this.#click(event));
    this.#body.addEventListener('dblclick', (event) => { const row = this.#rowOf(event.target); if (row && !event.target.closest('button, a, input')) this.#options.onOpen?.(row); });
    if (this.#options.onDrop) this.#drag();
    new ResizeObserver(() => { this.#layout(); this.#schedule(); }).observe(this.#grid);
    this.#layout();
  }

  /** The rows in the original order. */
  get rows() { return this.#all; }

  /** The selected rows, in the shown order. */
  get selected() { return this.#rows.filter((row) => this.#selected.has(this.#options.key(row))); }

  /** Replaces all rows. Selection, position and sorting remain. */
  setRows(rows) {
    this.#all = rows;
    this.#isRead = true;
    this.#arrange();
    const keys = new Set(rows.map(this.#options.key));
    const before = this.#selected.size;
    for (const key of this.#selected) if (!keys.has(key)) this.#selected.delete(key);
    if (this.#active !== null && !keys.has(this.#active)) this.#active = null;
    this.#schedule();
    if (this.#selected.size !== before) this.#tellSelection();
  }

  /** Shows changed contents of row objects that were given to `setRows`. `sorts`: what the order depends on has changed, too. */
  refresh({ sorts = false } = {}) {
    if (sorts && this.#sort) this.#arrange();
    for (const [, shown] of this.#elements) shown.row = null;
    this.#schedule();
  }

  /** Selects the row with this key, and scrolls to it. Returns whether there is one. */
  select(key) {
    const at = this.#rows.findIndex((row) => this.#options.key(row) === key);
    if (at >= 0) this.#moveTo(at, {});
    return at >= 0;
  }

  focus() { this.#grid.focus(); }

  // The columns that fit, and the head.
  #layout() {
    const width = this.#grid.clientWidth || 1280;
    const hidden = width < 600 ? 2 : width < 900 ? 3 : 4;
    const columns = this.#options.columns.filter((column) => (column.priority ?? 1) < hidden);
    this.#height = parseFloat(getComputedStyle(document.documentElement).getPropertyValue('--row')) || 22;
    if (columns.length === this.#columns.length && columns.every((column, at) => column === this.#columns[at])) return;
    this.#columns = columns;
    const widths = columns.map((column) => column.width ?? 'minmax(80px, 1fr)');
    this.#grid.style.setProperty('--columns', widths.join(' '));
    // Rows are grids of their own: with the least width of their content, their columns would not be in line.
    const least = widths.reduce((sum, width) => sum + Number(/(\d+)px/.exec(width)?.[1] ?? 80), 0);
    this.#grid.style.setProperty('--least', `${least}px`);
    this.#grid.setAttribute('aria-colcount', this.#options.columns.length);
    for (const [, shown] of this.#elements) shown.element.remove();
    this.#elements.clear();
    this.#drawHead();
  }

  #drawHead() {
    this.#head.replaceChildren(...this.#columns.map((column) => {
      const canSort = column.sort !== false;
      const order = this.#sort?.key === column.key ? this.#sort.order : 0;
      const arrow = order > 0 ? ' ▲' : order < 0 ? ' ▼' : '';
      const title = canSort
        ? el('button', { type: 'button', title: `Sort by ${column.title}`, on: { click: () => this.#sortBy(column) } }, column.title + arrow)
        : el('span', { text: column.title });
      return el('div', {
        role: 'columnheader', class: column.number ? 'number' : null, 'aria-colindex': String(this.#options.columns.indexOf(column) + 1),
        'aria-sort': order > 0 ? 'ascending' : order < 0 ? 'descending' : null,
      }, title);
    }));
  }

  // Ascending, descending, original order.
  #sortBy(column) {
    const order = this.#sort?.key === column.key ? this.#sort.order : 0;
    this.#sort = order === 0 ? { key: column.key, order: 1 } : order > 0 ? { key: column.key, order: -1 } : null;
    this.#drawHead();
    this.#arrange();
    this.#schedule();
  }

  #arrange() {
    const { heading, key } = this.#options;
    const column = this.#sort && this.#options.columns.find((one) => one.key === this.#sort.key);
    if (column) {
      const of = typeof column.sort === 'function' ? column.sort : column.value;
      const compare = (one, other) => (typeof one === 'number' && typeof other === 'number'
        ? one - other : compareTexts(String(one ?? ''), String(other ?? '')));
      this.#rows = this.#all.map((row) => [of(row), row]).sort(([one], [other]) => this.#sort.order * compare(one, other)).map(([, row]) => row);
    } else {
      this.#rows = this.#all;
    }
    this.#items = [];
    this.#placeOf.clear();
    for (const row of this.#rows) {
      const text = column ? null : heading?.(row);
      if (text) this.#items.push({ heading: text, row, key: `#${key(row)}` });
      this.#placeOf.set(key(row), this.#items.length);
      this.#items.push({ row, key: key(row) });
    }
    this.#grid.setAttribute('aria-rowcount', this.#items.length + 1);
  }

  #schedule() {
    if (this.#frame) return;
    this.#frame = requestAnimationFrame(() => { this.#frame = 0; this.#draw(); });
  }

  #draw() {
    const height = this.#height;
    this.#empty.hidden = this.#items.length > 0;
    setText(this.#empty, this.#isRead ? this.#options.empty : 'Reading…');
    this.#body.style.height = `${this.#items.length * height}px`;
    const first = Math.max(0, Math.floor(this.#grid.scrollTop / height) - SPARE);
    const end = Math.min(this.#items.length, Math.ceil((this.#grid.scrollTop + this.#grid.clientHeight) / height) + SPARE);
    const wanted = new Map();
    for (let at = first; at < end; at += 1) wanted.set(this.#items[at].key, at);
    for (const [key, shown] of this.#elements) {
      if (!wanted.has(key)) { shown.element.remove(); this.#elements.delete(key); }
    }
    for (const [key, at] of wanted) {
      const item = this.#items[at];
      let shown = this.#elements.get(key);
      if (!shown) {
        shown = this.#make(item, key);
        this.#elements.set(key, shown);
        this.#body.append(shown.element);
      }
      this.#fill(shown, item, at);
    }
    const active = this.#active !== null && this.#elements.get(this.#active);
    if (active) this.#grid.setAttribute('aria-activedescendant', active.element.id);
    else this.#grid.removeAttribute('aria-activedescendant');
    this.#tellMore();
  }

  // The texts of the selected row in columns that are hidden or too narrow.
  #tellMore() {
    const [key] = this.#selected;
    const at = this.#selected.size === 1 && this.#options.tells ? this.#placeOf.get(key) : undefined;
    const cells = this.#elements.get(key)?.cells ?? [];
    const isCut = (column) => {
      const cell = cells[this.#columns.indexOf(column)];
      return !this.#columns.includes(column) || (cell && cell.scrollWidth > cell.clientWidth);
    };
    const texts = at === undefined ? [] : this.#options.columns.filter(isCut).map((column) => [column.title, column.value?.(this.#items[at].row) ?? ''])
      .filter(([, text]) => text !== '').map(([title, text]) => `${title}: ${text}`);
    this.#more.hidden = texts.length === 0;
    setText(this.#more, texts.join(' · '));
    const bottom = `${this.#more.hidden ? 0 : this.#more.offsetHeight}px`;
    if (this.#grid.style.bottom !== bottom) this.#grid.style.bottom = bottom;
  }

  #make(item, key) {
    const element = el('div', { role: 'row', class: item.heading ? 'heading' : null });
    element.dataset.key = item.heading ? this.#options.key(item.row) : key;
    const cells = item.heading
      ? [el('div', { role: 'gridcell', 'aria-colspan': String(this.#options.columns.length) })]
      : this.#columns.map((column) => el('div', {
        role: 'gridcell', class: column.number ? 'number' : null, 'aria-colindex': String(this.#options.columns.indexOf(column) + 1),
      }));
    element.append(...cells);
    return { element, cells, row: null, at: -1 };
  }

  #fill(shown, item, at) {
    const { element, cells } = shown;
    if (shown.at !== at) {
      shown.at = at;
      element.style.transform = `translateY(${at * this.#height}px)`;
      element.setAttribute('aria-rowindex', at + 2);
      element.id = `${this.#id}-${at}`;
    }
    if (item.heading) {
      setText(cells[0], item.heading);
      return;
    }
    const isSelected = this.#selected.has(item.key);
    element.setAttribute('aria-selected', isSelected);
    const css = [this.#options.rowClass?.(item.row) ?? '', this.#active === item.key ? 'active' : '', this.#canDrag(item.row) ? 'draggable' : ''].filter(Boolean).join(' ');
    if (element.className !== css) element.className = css;
    if (shown.row === item.row) return;
    shown.row = item.row;
    this.#columns.forEach((column, place) => {
      if (column.cell) {
        const content = column.cell(item.row);
        if (typeof content === 'string') setText(cells[place], content);
        else cells[place].replaceChildren(...[content].flat().filter((node) => node !== null && node !== undefined));
      } else {
        const value = column.value(item.row);
        const text = value === null || value === undefined ? '' : String(value);
        setText(cells[place], text);
        // The whole text of a cell that is too narrow.
        if (text.length > 12) cells[place].title = text;
        else cells[place].removeAttribute('title');
      }
    });
  }

  #rowOf(target) {
    const key = target.closest?.('[role="row"]')?.dataset.key;
    const at = key === undefined ? undefined : this.#placeOf.get(key);
    return at === undefined ? null : this.#items[at].row;
  }

  #click(event) {
    const row = this.#rowOf(event.target);
    if (!row) return;
    this.#moveTo(this.#rows.indexOf(row), { extend: event.shiftKey, toggle: event.ctrlKey || event.metaKey });
  }

  #moveTo(at, { extend = false, toggle = false }) {
    if (this.#rows.length === 0) return;
    at = Math.max(0, Math.min(this.#rows.length - 1, at));
    const { key } = this.#options;
    const wanted = key(this.#rows[at]);
    if (toggle) {
      if (!this.#selected.delete(wanted)) this.#selected.add(wanted);
      this.#anchor = wanted;
    } else if (extend && this.#anchor !== null) {
      const from = this.#rows.findIndex((row) => key(row) === this.#anchor);
      this.#selected = new Set(this.#rows.slice(Math.min(from, at), Math.max(from, at) + 1).map(key));
    } else {
      this.#selected = new Set([wanted]);
      this.#anchor = wanted;
    }
    this.#active = wanted;
    const top = this.#placeOf.get(wanted) * this.#height;
    const room = this.#grid.clientHeight - this.#height;
    if (top < this.#grid.scrollTop) this.#grid.scrollTop = top;
    else if (top + this.#height > this.#grid.scrollTop + room) this.#grid.scrollTop = top + this.#height - room;
    this.#draw();
    this.#tellSelection();
  }

  #canDrag(row) { return Boolean(this.#options.onDrop) && this.#sort === null && this.#options.canDrag(row); }

  // Rows are dragged with the selection that they belong to.
  #drag() {
    draggable(this.#grid, {
      begin: (element) => {
        const row = this.#rowOf(element);
        if (!row || !this.#canDrag(row)) return null;
        return this.#selected.has(this.#options.key(row)) ? this.selected.filter((one) => this.#options.canDrag(one)) : [row];
      },
      mark: (element, after) => {
        for (const [, { element: one }] of this.#elements) {
          if (one === element) one.dataset.drop = after ? 'after' : 'before';
          else delete one.dataset.drop;
        }
      },
      drop: (rows, element, after) => {
        const row = element && this.#rowOf(element);
        // A comment belongs to the row below it.
        const isBehind = after && !element.classList.contains('heading');
        // Rows may have been read again during the drag.
        if (element && !row) return;
        // The last row has the room below it.
        const target = row ?? this.#rows.at(-1);
        const dragged = new Set(rows.map(this.#options.key));
        if (target && !dragged.has(this.#options.key(target))) this.#options.onDrop(rows, isBehind || !row ? { after: target } : { before: target });
      },
    });
  }

  #tellSelection() { this.#options.onSelect?.(this.selected); }

  #keydown(event) {
    if (event.target !== this.#grid) return;
    const { key } = this.#options;
    const at = this.#active === null ? -1 : this.#rows.findIndex((row) => key(row) === this.#active);
    const page = Math.max(1, Math.floor(this.#grid.clientHeight / this.#height) - 2);
    const targets = { ArrowDown: at + 1, ArrowUp: at < 0 ? 0 : at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: this.#rows.length - 1 };
    if (event.key in targets && !event.altKey && !event.ctrlKey && !event.metaKey) {
      this.#moveTo(targets[event.key], { extend: event.shiftKey });
    } else if (event.key === ' ' && at >= 0) {
      this.#moveTo(at, { toggle: true });
    } else if (event.key === 'a' && (event.ctrlKey || event.metaKey)) {
      this.#selected = new Set(this.#rows.map(key));
      this.#draw();
      this.#tellSelection();
    } else if (event.key === 'Enter' && at >= 0) {
      this.#options.onOpen?.(this.#rows[at]);
    } else if (!this.#options.onKey?.(event, this.selected)) {
      return;
    }
    event.preventDefault();
  }
}
