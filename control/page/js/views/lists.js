// The address lists and their entries, by page.

import { ask, dialog, duration, el, number, setText, toast } from '../dom.js';
import { pathOf } from '../api.js';
import { Table } from '../table.js';

/** Entries of a page. */
const PAGE = 1000;

const originOf = (entry) => (entry.of_rules ? `rules${entry.line ? `, line ${entry.line}` : ''}` : entry.dynamic ? 'packet or timeout' : 'operator');
const keyOf = (entry) => [entry.list, entry.address, entry.vlan, entry.pppoe, entry.to?.address, entry.line].join(' ');

export default {
  title: 'Lists',
  enter(root, context) {
    const chosen = { list: context.path[0] ?? '', address: '', comment: '' };
    /** Where each page begins: the entry before it. */
    let pages = [null];
    let answer = { entries: [], lists: [], truncated: false };
    let readAt = 0;

    const left = (entry) => (entry.time_left_seconds === null ? null : Math.max(0, entry.time_left_seconds - (performance.now() - readAt) / 1000));
    const table = new Table({
      label: 'Entries of address lists',
      columns: [
        { key: 'list', title: 'List', width: '160px', value: (entry) => entry.list },
        { key: 'address', title: 'Address', width: 'minmax(150px, 1fr)', value: (entry) => entry.name ? `${entry.address} (${entry.name})` : entry.address },
        { key: 'left', title: 'Time left', width: '110px', number: true, value: (entry) => { const time = left(entry); return time === null ? '–' : duration(Math.ceil(time)); }, sort: (entry) => entry.time_left_seconds ?? Infinity },
        { key: 'origin', title: 'Origin', width: '140px', priority: 3, value: originOf },
        { key: 'steps', title: 'Steps', width: '60px', number: true, priority: 3, value: (entry) => entry.steps ?? '' },
        { key: 'comment', title: 'Comment', width: 'minmax(120px, 1fr)', priority: 2, value: (entry) => entry.comment },
      ],
      key: keyOf,
      empty: 'No entries.',
      onSelect: () => drawSelection(),
      onKey: (event, entries) => event.key === 'Delete' && context.can('operate') && (run(() => remove(entries)), true),
      onOpen: (entry) => { location.hash = `#/explain?source=${encodeURIComponent(entry.address)}`; },
    });

    const list = el('select', { 'aria-label': 'List' });
    const address = el('input', { type: 'search', 'aria-label': 'Address', placeholder: 'address or prefix', spellcheck: 'false' });
    const comment = el('input', { type: 'search', 'aria-label': 'Comment', placeholder: 'comment' });
    const shown = el('span', { class: 'soft' });
    const back = el('button', { type: 'button', text: 'Previous page' });
    const forth = el('button', { type: 'button', text: 'Next page' });

    async function read() {
      const after = pages.at(-1);
      const query = { list: chosen.list, address: chosen.address, comment: chosen.comment, limit: PAGE };
      if (after) Object.assign(query, { 'after-list': after.list, 'after-address': after.address, 'after-vlan': after.vlan });
      for (const [name, value] of Object.entries(query)) if (value === '' || value === null || value === undefined) delete query[name];
      answer = await context.api.get(pathOf('lists', query), { signal: context.signal });
      readAt = performance.now();
      const names = ['', ...new Set([...answer.lists.map((one) => one.list), ...(chosen.list ? [chosen.list] : [])])];
      if (list.options.length !== names.length || names.some((name, at) => list.options[at].value !== name)) {
        list.replaceChildren(...names.map((name) => el('option', { value: name, text: name || 'all lists' })));
      }
      list.value = chosen.list;
      table.setRows(answer.entries);
      back.disabled = pages.length === 1;
      forth.disabled = !answer.truncated;
      setText(shown, `${number(answer.entries.length)} entries, page ${pages.length}${answer.truncated ? ', more follow' : ''}`);
      drawSelection();
    }
    const run = async (action) => {
      try {
        if (await action() !== false) await read();
      } catch (failure) {
        if (failure.name !== 'AbortError') toast(failure);
      }
    };
    const choose = (what) => run(() => { Object.assign(chosen, what); pages = [null]; });
    list.addEventListener('change', () => choose({ list: list.value }));
    address.addEventListener('change', () => choose({ address: address.value.trim() }));
    comment.addEventListener('change', () => choose({ comment: comment.value.trim() }));
    back.addEventListener('click', () => run(() => { pages.pop(); }));
    forth.addEventListener('click', () => run(() => { pages.push(answer.entries.at(-1)); }));

    /** Asks for an entry, and adds it. An entry that is there gets the timeout. */
    async function add(entry) {
      const inputs = {
        list: el('input', { value: entry?.list ?? chosen.list, required: true, spellcheck: 'false' }),
        address: el('input', { value: entry?.address ?? '', required: true, spellcheck: 'false', placeholder: '192.0.2.1, 192.0.2.0/24 or 192.0.2.1-192.0.2.9' }),
        timeout: el('input', { value: '', placeholder: '1h30m; empty: without end', spellcheck: 'false' }),
        comment: el('input', { value: entry?.comment ?? '' }),
      };
      return await dialog({
        title: entry ? `Extend ${entry.address}` : 'Add an entry',
        content: el('div', {}, Object.entries({ list: 'List', address: 'Address', timeout: 'Timeout', comment: 'Comment' }).map(([name, label]) => el('label', { class: 'field' }, label, inputs[name]))),
        buttons: [{
          label: entry ? 'Extend' : 'Add',
          primary: true,
          action: async () => {
            const body = { address: inputs.address.value.trim() };
            if (inputs.timeout.value.trim()) body.timeout = inputs.timeout.value.trim();
            if (inputs.comment.value) body.comment = inputs.comment.value;
            await context.api.post(['lists', inputs.list.value.trim()], body);
            return true;
          },
        }],
      }) === true;
    }

    async function remove(entries) {
      const names = entries.slice(0, 10).map((entry) => `${entry.address} from ${entry.list}`).join(', ');
      if (!await ask('Remove entries', `Remove ${names}${entries.length > 10 ? `, and ${entries.length - 10} more` : ''}?`, 'Remove')) return false;
      for (const entry of entries) await context.api.delete(['lists', entry.list, entry.address]);
      return true;
    }

    const buttons = context.can('operate') ? [
      el('button', { type: 'button', text: 'Add', on: { click: () => run(() => add(null)) } }),
      el('button', { type: 'button', text: 'Extend', title: 'Give the entry another timeout', on: { click: () => run(() => add(table.selected[0])) } }),
      el('button', { type: 'button', text: 'Remove', title: 'Remove the selected entries (Delete)', on: { click: () => run(() => remove(table.selected)) } }),
    ] : [];
    function drawSelection() {
      if (buttons.length === 0) return;
      const isOwn = table.selected.length > 0 && table.selected.every((entry) => !entry.of_rules);
      buttons[1].disabled = !isOwn || table.selected.length !== 1;
      buttons[2].disabled = !isOwn;
    }

    root.append(el('h1', { class: 'visually-hidden', text: 'Lists' }),
      el('div', { class: 'toolbar' }, list, address, comment, buttons, el('span', { class: 'space' }), shown, back, forth), table.element);
    context.every(2, read);
    // Times count down without requests.
    const timer = setInterval(() => table.refresh(), 1000);
    context.signal.addEventListener('abort', () => clearInterval(timer));
  },
};
