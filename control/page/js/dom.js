// Elements, dialogs, messages and formats. Text reaches the page through textContent alone, so nothing in it is markup.

/**
 * Makes an element. `properties`: `class`, `text`, `on: {event: handler}`, `vars: {'--name': value}`, `value`, `checked`, and any
 * attribute; `null`, `undefined` and `false` omit an attribute, `true` sets it empty. Children: nodes, texts, arrays, or nothing.
 */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === 'class') element.className = value;
    else if (name === 'text') element.textContent = value;
    else if (name === 'on') for (const [event, handler] of Object.entries(value)) element.addEventListener(event, handler);
    else if (name === 'vars') for (const [key, text] of Object.entries(value)) element.style.setProperty(key, text);
    else if (name === 'value' || name === 'checked') element[name] = value;
    else element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Sets the text of an element, if it is another one: so a table that does not change costs nothing. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Gives an element these children, and changes only what differs: focus, selected text and scroll positions remain. Handlers of kept
 * elements remain, too, so `patch` is for what is shown, not for forms.
 */
export function patch(root, ...children) {
  const wanted = children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false)
    .map((child) => (child instanceof Node ? child : document.createTextNode(child)));
  wanted.forEach((child, at) => {
    const present = root.childNodes[at];
    if (!present) root.append(child);
    else if (present.nodeName !== child.nodeName) present.replaceWith(child);
    else if (present.nodeType === Node.TEXT_NODE) { if (present.data !== child.data) present.data = child.data; }
    else {
      for (const { name } of [...present.attributes]) if (!child.hasAttribute(name)) present.removeAttribute(name);
      for (const { name, value } of child.attributes) if (present.getAttribute(name) !== value) present.setAttribute(name, value);
      patch(present, [...child.childNodes]);
    }
  });
  while (root.childNodes.length > wanted.length) root.lastChild.remove();
}

/** A table of texts: `columns` are `[title, class?]`, `rows` arrays of texts or nodes. For short tables; others: table.js. */
export function plainTable(label, columns, rows) {
  return el('div', { class: 'scroll', role: 'region', 'aria-label': label, tabindex: '0' },
    el('table', { class: 'plain-table' },
      el('thead', {}, el('tr', {}, columns.map(([title, css]) => el('th', { scope: 'col', class: css, text: title })))),
      el('tbody', {}, rows.map((row) => el('tr', {}, row.map((cell, at) => el('td', { class: columns[at][1] }, cell)))))));
}

/** Names and values as a list: `[[name, value], …]`. */
export function pairs(list) {
  return el('dl', { class: 'pairs' }, list.map(([name, value]) => [el('dt', { text: name }), el('dd', {}, value)]));
}

/**
 * Opens a modal dialog. `content`: nodes. `buttons`: `[{label, primary, action}]`; an action may be async, and a failure is shown in
 * the dialog, which then stays open. Escape and the button Cancel close it. Returns a promise of the action's result, or `undefined`.
 */
export function dialog({ title, content, buttons = [], cancel = 'Cancel' }) {
  return new Promise((resolve) => {
    const error = el('p', { class: 'error-text', role: 'alert', hidden: true });
    const box = el('dialog', { 'aria-label': title });
    const close = (result) => { box.close(); resolve(result); };
    const leave = el('button', { type: 'button', text: cancel, on: { click: () => close() } });
    // An action is not undone by closing the dialog: its result is shown first. A browser obeys `cancel` for the first Escape only.
    let runs = false;
    box.addEventListener('cancel', (event) => { if (runs) event.preventDefault(); });
    const run = async (button, action) => {
      runs = true;
      box.setAttribute('closedby', 'none');
      leave.disabled = true;
      button.disabled = true;
      error.hidden = true;
      try {
        close(await action());
      } catch (failure) {
        error.textContent = failure.message;
        error.hidden = false;
      } finally {
        runs = false;
        box.removeAttribute('closedby');
        leave.disabled = false;
        button.disabled = false;
      }
    };
    const made = buttons.map(({ label, primary, action }) => {
      const button = el('button', { type: 'button', class: primary ? 'primary' : null, text: label });
      button.addEventListener('click', () => run(button, action));
      return button;
    });
    const main = made[buttons.findIndex((button) => button.primary)] ?? made[0];
    const form = el('form', { on: { submit: (event) => { event.preventDefault(); main?.click(); } } },
      el('header', { text: title }),
      el('div', { class: 'content' }, content, error),
      el('footer', {}, leave, made),
      el('button', { type: 'submit', hidden: true, tabindex: '-1', text: 'OK' }));
    box.append(form);
    box.addEventListener('close', () => { box.remove(); resolve(); });
    document.body.append(box);
    box.showModal();
  });
}

/** Asks before a change. Returns whether the user agreed. */
export async function ask(title, text, label) {
  return await dialog({ title, content: el('p', { text }), buttons: [{ label, primary: true, action: () => true }] }) === true;
}

const toasts = el('div', { class: 'toasts', role: 'status', 'aria-live': 'polite' });

/** Shows a message: of a success for six seconds, of a failure until it is closed. `message` is a text or an Error. */
export function toast(message, kind = message instanceof Error ? 'error' : 'done') {
  if (!toasts.isConnected) document.body.append(toasts);
  const box = el('div', { class: `toast ${kind}` }, el('p', { text: message instanceof Error ? message.message : message }));
  box.append(el('button', { type: 'button', class: 'plain', 'aria-label': 'Close the message', text: '×', on: { click: () => box.remove() } }));
  toasts.append(box);
  while (toasts.children.length > 5) toasts.firstChild.remove();
  if (kind !== 'error') setTimeout(() => box.remove(), 6000);
}

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });

/** 1234567 as `1 234 567`, as in WinBox. */
export const number = (value) => (value === null || value === undefined ? '–' : whole.format(value).replaceAll(',', '\u202f'));

function scaled(value, step, units) {
  let at = 0;
  while (Math.abs(value) >= step * 0.9995 && at < units.length - 1) { value /= step; at += 1; }
  const text = at === 0 ? String(Math.round(value)) : value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0);
  return units[at] === '' ? text : `${text} ${units[at]}`;
}

/** Bytes: `1.50 KiB`. */
export const bytes = (value) => (value === null || value === undefined ? '–' : scaled(value, 1024, ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']));
/** Packets in a second: `1.20 k/s`. */
export const rate = (value) => (value === null || value === undefined ? '–' : `${scaled(value, 1000, ['', 'k', 'M', 'G'])}/s`);
/** Bits in a second, of bytes in a second: `9.60 Mbit/s`. */
export const bitRate = (value) => (value === null || value === undefined ? '–' : scaled(value * 8, 1000, ['bit/s', 'kbit/s', 'Mbit/s', 'Gbit/s', 'Tbit/s']));

/** Seconds in the form of RouterOS: `1d2h3m4s`; below a second `0.4s`. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return '–';
  if (seconds < 1) return seconds === 0 ? '0s' : `${Math.ceil(seconds * 10) / 10}s`;
  let left = Math.floor(seconds);
  let text = '';
  for (const [unit, length] of [['w', 604800], ['d', 86400], ['h', 3600], ['m', 60], ['s', 1]]) {
    if (left >= length) { text += Math.floor(left / length) + unit; left %= length; }
  }
  return text;
}

const clock = new Intl.DateTimeFormat('sv', { dateStyle: 'short', timeStyle: 'medium' });

/** A time of the API (RFC 3339) in the zone of the viewer: `2026-12-01 02:03:04`. */
export const time = (text) => (text ? clock.format(new Date(text)) : '–');

/** A `<time>` element, with the original as its attribute. */
export const timeElement = (text) => el('time', { datetime: text, title: text, text: time(text) });
