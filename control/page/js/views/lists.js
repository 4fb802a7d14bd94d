// The address lists and their entries, by page.

import { ask, dialog, duration, el, number, setText, toast } from '../dom.js';
import { pathOf } from '../api.js';
import { doorOf, networkText, removeEntry, secondsLeft, toKey, toText } from '../entries.js';
import { oneAddress, sourceDialog } from '../source.js';
import { Table } from '../table.js';

/** Entries of a page. */
const PAGE = 1000;
/** The pause after a key in a search, in milliseconds. */
const TYPING_MS = 300;
/** Addresses that a question names. */
const NAMED = 10;

const keyOf = (entry) => [entry.list, entry.address, entry.vlan, entry.pppoe, toKey(entry.to), entry.line, entry.name, entry.dynamic].join(' ');
const totalOf = (one) => one.entries + one.by_operators + one.by_rules;

/** The rules that add to lists: `{list: 'ip filter 9 (telnet)'}`. */
function addersOf(rules) {
  const found = {};
  for (const { number: at, action, comment, properties } of rules) {
    const list = properties['address-list'];
    if (!list || !action.startsWith('add-')) continue;
    (found[list.replace(/^"(.*)"$/s, (_, text) => text.replace(/\\(.)/gs, '$1'))] ??= []).push(comment ? `${at} (${comment})` : String(at));
  }
  return found;
}

export default {
  title: 'Lists',
  enter(root, context) {
    const mayChange = context.can('operate');
    const chosen = { list: context.path[0] ?? '', address: context.query.get('address') ?? '', comment: '', dynamic: '', 'expires-within': '' };
    /** Where each page begins: the entry before it. */
    let pages = [null];
    let answer = { entries: [], lists: [], truncated: false };
    let adders = {};
    let readAt = 0;

    const left = (entry) => secondsLeft(entry, readAt);
    function originOf(entry) {
      if (entry.of_rules) return entry.line ? `rule file, line ${entry.line}` : 'rule file';
      if (!entry.dynamic) return 'operator';
      if (entry.to || entry.steps !== null) return `door ${doorOf(entry.list)[0]}`;
      const rules = adders[entry.list];
      return rules ? `${rules.slice(0, 3).join(', ')}${rules.length > 3 ? ', …' : ''}, or an operator` : 'operator';
    }

    const lists = new Table({
      label: 'Address lists',
      columns: [
        { key: 'list', title: 'List', width: 'minmax(110px, 1fr)', value: (one) => one.list || 'all lists' },
        { key: 'entries', title: 'Entries', width: '90px', number: true, value: (one) => number(totalOf(one)), sort: totalOf },
      ],
      key: (one) => one.list,
      rowClass: (one) => (one.refused > 0 ? 'bad-row' : ''),
      onSelect: (rows) => { if (rows.length === 1 && rows[0].list !== chosen.list) choose({ list: rows[0].list }); },
    });
    const table = new Table({
      label: 'Entries of address lists',
      columns: [
        { key: 'list', title: 'List', width: '140px', priority: 3, value: (entry) => entry.list },
        { key: 'address', title: 'Address', width: 'minmax(150px, 1fr)', value: (entry) => [entry.address, entry.name && `(${entry.name})`, networkText(entry)].filter(Boolean).join(' ') },
        { key: 'left', title: 'Time left', width: '110px', number: true, value: (entry) => { const rest = left(entry); return rest === null ? '–' : duration(Math.ceil(rest)); }, sort: (entry) => entry.time_left_seconds ?? Infinity },
        { key: 'origin', title: 'Added by', width: 'minmax(120px, 1fr)', priority: 2, value: originOf },
        { key: 'to', title: 'To', width: '120px', priority: 3, value: (entry) => (entry.to ? toText(entry.to) : '') },
        { key: 'steps', title: 'Steps', width: '60px', number: true, priority: 3, value: (entry) => entry.steps ?? '' },
        { key: 'comment', title: 'Comment', width: 'minmax(100px, 1fr)', value: (entry) => entry.comment },
      ],
      key: keyOf,
      reads: true,
      empty: 'No entries.',
      onSelect: () => drawSelection(),
      onKey: (event, entries) => event.key === 'Delete' && mayChange && entries.some(isOwn) && (run(() => remove(entries.filter(isOwn))), true),
      onOpen: (entry) => show(entry),
    });
    const isOwn = (entry) => !entry.of_rules;

    const address = el('input', { type: 'search', 'aria-label': 'Address', placeholder: 'address, prefix or range', spellcheck: 'false', value: chosen.address });
    const comment = el('input', { type: 'search', 'aria-label': 'Comment', placeholder: 'comment' });
    const kind = el('select', { 'aria-label': 'Kind' }, [['', 'all kinds'], ['true', 'dynamic'], ['false', 'static']].map(([value, text]) => el('option', { value, text })));
    const within = el('input', { type: 'search', size: '12', 'aria-label': 'Ends within', placeholder: 'ends within: 1h', spellcheck: 'false' });
    const shown = el('span', { class: 'soft', role: 'status' });
    const back = el('button', { type: 'button', text: 'Previous page' });
    const forth = el('button', { type: 'button', text: 'Next page' });
    const problem = el('p', { class: 'error-text', role: 'alert', hidden: true });
    const state = el('button', { type: 'button', text: 'State', title: 'What is known of the address (Enter)', on: { click: () => show(table.selected[0]) } });

    let asked = 0;
    async function read() {
      const turn = asked += 1;
      const after = pages.at(-1);
      const query = { ...chosen, limit: PAGE };
      // Without its network, an entry may be on two pages, but none is left out.
      if (after) Object.assign(query, { 'after-list': after.list, 'after-address': after.address });
      let found;
      try {
        found = await context.api.get(pathOf('lists', query), { signal: context.signal });
      } catch (failure) {
        if (failure.status !== 400 || turn !== asked) throw failure;
        // An address that is not typed to its end.
        setText(problem, failure.message);
        problem.hidden = false;
        return;
      }
      // The answer to a question that is not asked any more.
      if (turn !== asked) return;
      problem.hidden = true;
      answer = found;
      readAt = performance.now();
      draw();
    }
    function draw() {
      const sum = { list: '', entries: 0, by_operators: 0, by_rules: 0, refused: 0 };
      for (const one of answer.lists) for (const name of ['entries', 'by_operators', 'by_rules']) sum[name] += one[name];
      const all = [sum, ...answer.lists];
      if (chosen.list && !all.some((one) => one.list === chosen.list)) all.push({ ...sum, list: chosen.list, entries: 0, by_operators: 0, by_rules: 0 });
      lists.setRows(all);
      if (!lists.selected.some((one) => one.list === chosen.list)) lists.select(chosen.list);
      table.setRows(answer.entries);
      back.disabled = pages.length === 1;
      forth.disabled = !answer.truncated;
      const isFiltered = chosen.address || chosen.comment || chosen.dynamic || chosen['expires-within'];
      const total = all.find((one) => one.list === chosen.list);
      const first = (pages.length - 1) * PAGE;
      const range = answer.entries.length === 0 ? '0' : `${number(first + 1)}–${number(first + answer.entries.length)}`;
      setText(shown, isFiltered ? `${range}${answer.truncated ? ', more follow' : ''}` : `${range} of ${number(total ? totalOf(total) : answer.entries.length)}`);
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
    let typing = 0;
    for (const [input, name] of [[address, 'address'], [comment, 'comment'], [within, 'expires-within']]) {
      input.addEventListener('input', () => {
        clearTimeout(typing);
        typing = setTimeout(() => choose({ [name]: input.value.trim() }), TYPING_MS);
      });
    }
    kind.addEventListener('change', () => choose({ dynamic: kind.value }));
    back.addEventListener('click', () => run(() => { pages.pop(); }));
    forth.addEventListener('click', () => run(() => { pages.push(answer.entries.at(-1)); }));

    const show = (entry) => sourceDialog(context, entry.address);

    const fields = (inputs, labels) => Object.entries(labels).map(([name, label]) => el('label', { class: 'field' }, label, inputs[name]));

    /** Asks for an entry, and adds it. */
    async function add() {
      const inputs = {
        list: el('input', { name: 'list', value: chosen.list, required: true, spellcheck: 'false' }),
        address: el('input', { name: 'address', required: true, spellcheck: 'false', placeholder: '192.0.2.1, 192.0.2.0/24 or 192.0.2.1-192.0.2.9' }),
        timeout: el('input', { name: 'timeout', placeholder: '1h30m; empty: without end', spellcheck: 'false' }),
        comment: el('input', { name: 'comment' }),
      };
      return await dialog({
        title: 'Add an entry',
        content: el('div', {}, fields(inputs, { list: 'List', address: 'Address, prefix or range', timeout: 'Timeout', comment: 'Comment' })),
        buttons: [{
          label: 'Add',
          primary: true,
          action: async () => {
            const list = inputs.list.value.trim();
            if (!list) throw new Error('The entry needs a list: type its name.');
            const body = { address: inputs.address.value.trim() };
            if (inputs.timeout.value.trim()) body.timeout = inputs.timeout.value.trim();
            if (inputs.comment.value) body.comment = inputs.comment.value;
            await context.api.post(['lists', list], body);
            return true;
          },
        }],
      }) === true;
    }

    const named = (entries) => `${entries.slice(0, NAMED).map((entry) => `${entry.address} of ${entry.list}`).join(', ')}${entries.length > NAMED ? `, and ${number(entries.length - NAMED)} more` : ''}`;
    /** Addresses once each, because a change of an address concerns its entries of all networks and destinations. */
    const once = (entries) => [...new Map(entries.map((entry) => [`${entry.list} ${entry.address}`, entry])).values()];

    /** Runs a change for each entry. A failure tells how far it came. */
    async function forEach(entries, change, done) {
      let count = 0;
      for (const entry of entries) {
        try {
          await change(entry);
        } catch (failure) {
          failure.message = entries.length > 1 ? `${done} ${number(count)} of ${number(entries.length)} entries. ${failure.message}` : failure.message;
          await read().catch(() => {});
          throw failure;
        }
        count += 1;
      }
      toast(`${done} ${named(entries)}.`);
      return true;
    }

    async function extend(selected) {
      const entries = once(selected);
      const timeout = el('input', { name: 'timeout', placeholder: '1h30m', spellcheck: 'false', required: true });
      const widens = entries.some((entry) => entry.to || networkText(entry));
      return await dialog({
        title: 'Extend entries',
        content: el('div', {}, el('p', { text: `Give ${named(entries)} another timeout, which begins now.` }),
          widens ? el('p', { class: 'warn', text: 'An entry of an operator counts for all destinations and networks. A door’s entry counts for one.' }) : [],
          fields({ timeout }, { timeout: 'Timeout' })),
        buttons: [{
          label: 'Extend',
          primary: true,
          action: async () => {
            const text = timeout.value.trim();
            if (!text) throw new Error('A timeout is needed, such as 1h30m.');
            return forEach(entries, (entry) => context.api.post(['lists', entry.list], { address: entry.address, timeout: text, ...(entry.comment ? { comment: entry.comment } : {}) }), 'Extended');
          },
        }],
      }) === true;
    }

    async function remove(selected) {
      const entries = once(selected);
      if (!await ask(entries.length === 1 ? 'Remove the entry' : `Remove ${number(entries.length)} entries`, `Remove ${named(entries)}?`, 'Remove')) return false;
      return forEach(entries, (entry) => removeEntry(entry.list, entry.address), 'Removed');
    }

    const buttons = mayChange ? {
      add: el('button', { type: 'button', text: 'Add', on: { click: () => run(add) } }),
      extend: el('button', { type: 'button', text: 'Extend', title: 'Give the selected entries another timeout', on: { click: () => run(() => extend(table.selected.filter(isOwn))) } }),
      remove: el('button', { type: 'button', text: 'Remove', title: 'Remove the selected entries (Delete)', on: { click: () => run(() => remove(table.selected.filter(isOwn))) } }),
    } : {};
    function drawSelection() {
      const { selected } = table;
      state.disabled = selected.length !== 1 || oneAddress(selected[0].address) === null;
      if (!mayChange) return;
      buttons.extend.disabled = !selected.some((entry) => isOwn(entry) && !entry.name);
      buttons.remove.disabled = !selected.some(isOwn);
    }

    root.append(el('h1', { class: 'visually-hidden', text: 'Lists' }),
      el('div', { class: 'toolbar' }, address, comment, kind, within, Object.values(buttons), state, el('span', { class: 'space' }), shown, back, forth, problem),
      el('div', { class: 'split' }, el('div', { class: 'fill' }, lists.element), el('div', { class: 'fill' }, table.element)));
    context.every(2, async () => { if (problem.hidden) await read(); });
    let generation = -1;
    context.status(async (status) => {
      if (status.generation === generation) return;
      generation = status.generation;
      try {
        adders = addersOf((await context.api.get('rules', { signal: context.signal })).rules);
        table.refresh();
      } catch {
        generation = -1; // With the next status.
      }
    });
    // Times count down without requests.
    const timer = setInterval(() => table.refresh(), 250);
    context.signal.addEventListener('abort', () => { clearInterval(timer); clearTimeout(typing); });
    drawSelection();
  },
};
