// The running rules: WinBox's firewall window.

import { ask, bitRate, bytes, dialog, el, number, patch, plainTable, rate, setText, toast } from '../dom.js';
import { Table } from '../table.js';
import * as changes from '../rules/changes.js';
import { count, countersOf, keepRates } from '../rules/counters.js';
import { keyOf, tabsOf } from '../rules/tabs.js';
import { filter, ofRule, quoted, written } from '../rules/words.js';

const ICONS = { accept: '✓', drop: '✗', reject: '⊘', tarpit: '⊘', jump: '↷', return: '↶', log: '≡', passthrough: '↓' };
const icon = (action) => ICONS[action] ?? (action.startsWith('add-') ? '+' : '·');

/** Properties with columns of their own. */
const COLUMNS = {
  source: ['src-address', 'src-address-list', 'src-mac-address'], destination: ['dst-address', 'dst-address-list'], protocol: ['protocol'],
  ports: ['src-port', 'dst-port', 'port'], interfaces: ['in-interface', 'in-interface-list', 'out-interface', 'out-interface-list'],
};
const OWN = new Set(Object.values(COLUMNS).flat());
const OF = { 'src-address': '', 'dst-address': '', 'dst-port': '', protocol: '', 'src-port': 'from ', port: 'any ', 'in-interface': 'in ', 'out-interface': 'out ' };

/** The values of some properties: lists with `@`. */
const values = (rule, names) => names.filter((name) => rule.properties[name] !== undefined)
  .map((name) => (name.endsWith('-address-list') ? '@' : OF[name] ?? `${name}=`) + rule.properties[name]).join(' ');
const others = (rule) => Object.entries(rule.properties).filter(([name]) => !OWN.has(name)).map(([name, value]) => `${name}=${value}`).join(' ');

export default {
  title: 'Rules',
  enter(root, context) {
    let document = { rules: [], patterns: [], revision: 0, order: null };
    let lints = new Map();
    let orderOfLints = null;
    let counted = null;
    let tab = '';
    const wanted = { rule: context.query.get('rule'), chain: context.query.get('chain') };

    const tabs = el('div', { class: 'tabs', role: 'group', 'aria-label': 'Chain' });
    const line = el('input', { type: 'search', class: 'filter', 'aria-label': 'Filter', placeholder: 'chain=input dst-port=22 src-address-list~office' });
    const detail = el('section', { class: 'detail', 'aria-label': 'Selected rule', 'aria-live': 'off', hidden: true });
    const shown = el('span', { class: 'soft' });

    const of = (rule, what) => rule.rate?.[what] ?? null;
    const flags = (rule) => [rule.dynamic ? 'D' : '', rule.disabled ? 'X' : '', rule.invalid ? 'I' : '', lints.has(rule.id) ? '!' : ''].join('');
    const table = new Table({
      label: 'Rules',
      columns: [
        { key: 'flags', title: '', width: '32px', value: flags },
        { key: 'number', title: '#', width: '92px', priority: 2, value: (rule) => rule.number },
        { key: 'action', title: 'Action', width: '116px', value: (rule) => `${icon(rule.action)} ${rule.action}` },
        { key: 'chain', title: 'Chain', width: '76px', priority: 2, value: (rule) => rule.chain },
        { key: 'source', title: 'Source', width: 'minmax(96px, 1fr)', value: (rule) => values(rule, COLUMNS.source) },
        { key: 'destination', title: 'Destination', width: 'minmax(104px, 1fr)', priority: 2, value: (rule) => values(rule, COLUMNS.destination) },
        { key: 'protocol', title: 'Proto', width: '56px', value: (rule) => values(rule, COLUMNS.protocol) },
        { key: 'ports', title: 'Ports', width: '84px', value: (rule) => values(rule, COLUMNS.ports) },
        { key: 'interfaces', title: 'Interfaces', width: '88px', priority: 3, value: (rule) => values(rule, COLUMNS.interfaces) },
        { key: 'others', title: 'Other properties', width: 'minmax(120px, 4fr)', priority: 3, value: others },
        { key: 'bytes', title: 'Bytes', width: '76px', number: true, priority: 3, value: (rule) => bytes(rule.counter.bytes), sort: (rule) => rule.counter.bytes },
        { key: 'packets', title: 'Packets', width: '84px', number: true, priority: 2, value: (rule) => number(rule.counter.packets), sort: (rule) => rule.counter.packets },
        { key: 'packet-rate', title: 'Packets/s', width: '84px', number: true, priority: 3, value: (rule) => rate(of(rule, 'packets')), sort: (rule) => of(rule, 'packets') ?? -1 },
        { key: 'bit-rate', title: 'Rate', width: '92px', number: true, priority: 3, value: (rule) => bitRate(of(rule, 'bytes')), sort: (rule) => of(rule, 'bytes') ?? -1 },
      ],
      key: (rule) => rule.id,
      heading: (rule) => (rule.invalid ? `${rule.comment ? `${rule.comment} – ` : ''}invalid: ${rule.invalid}` : rule.dynamic ? null : rule.comment),
      rowClass: (rule) => (rule.invalid ? 'bad-row' : rule.disabled ? 'dimmed' : ''),
      reads: true,
      tells: false,
      empty: 'No rules: the default of each chain decides.',
      onOpen: (rule) => isEditable(rule) && run(() => changes.change(context, { base: document.revision, rule, rules: document.rules })),
      onSelect: () => drawSelection(),
      onKey: (event, rules) => keys(event, rules),
      onDrop: (rules, { before, after }) => run(() => move(rules, before ?? next(after, rules))),
      canDrag: (rule) => isEditable(rule),
    });

    const mayEdit = context.can('administer');
    const isEditable = (rule) => mayEdit && !rule.dynamic;
    /** Runs a change, and reads the rules again. */
    const run = async (action) => {
      try {
        if (await action()) await read();
      } catch (failure) {
        toast(failure);
      }
    };
    const edit = (title, rules, command) => changes.edit(context, {
      title, base: document.revision, menu: changes.menuOf(rules[0]), commands: rules.map(command),
    });
    const ids = (rules) => rules.map((rule) => rule.id).join(',');
    const many = (rules) => (rules.length === 1 ? `rule ${rules[0].number}` : `${rules.length} rules`);

    /** The rule behind another one in its menu, other than the moved ones; `null` at the end. Rules that the filter hides count. */
    function next(rule, moved) {
      if (rule.menu !== moved[0].menu) return rule;
      // By their ids: rules may have been read again during the drag.
      const ids = new Set(moved.map((one) => one.id));
      const own = document.rules.filter((one) => one.menu === rule.menu && !ids.has(one.id));
      return own[own.findIndex((one) => one.id === rule.id) + 1] ?? null;
    }

    /** Moves rules before another one of their menu, or to its end. */
    function move(rules, target) {
      if (rules.length === 0 || rules.some((rule) => rule.menu !== rules[0].menu) || (target && target.menu !== rules[0].menu)) {
        throw new Error('Rules are moved within their menu.');
      }
      return changes.edit(context, {
        title: `Move ${many(rules)}`, base: document.revision, menu: changes.menuOf(rules[0]), commands: [`move ${ids(rules)}${target ? ` ${target.id}` : ''}`],
      });
    }

    /** Moves the selection by one place among the rules of its menu and chain. */
    function step(rules, by) {
      const own = document.rules.filter((rule) => rule.menu === rules[0].menu && rule.chain === rules[0].chain && !rule.dynamic);
      const places = rules.map((rule) => own.indexOf(rule)).filter((place) => place >= 0);
      const first = Math.min(...places);
      const last = Math.max(...places);
      if (places.length === 0 || (by < 0 && first === 0) || (by > 0 && last === own.length - 1)) return undefined;
      return move(rules, by < 0 ? own[first - 1] : own[last + 2] ?? null);
    }

    function keys(event, rules) {
      const own = rules.filter(isEditable);
      if (own.length === 0) return false;
      if (event.altKey && event.key === 'ArrowUp') run(() => step(own, -1));
      else if (event.altKey && event.key === 'ArrowDown') run(() => step(own, 1));
      else if (event.key === 'Delete') run(() => edit(`Remove ${many(own)}`, own, (rule) => `remove ${rule.id}`));
      else return false;
      return true;
    }

    async function comment(rule) {
      const input = el('input', { value: rule.comment });
      const text = await dialog({
        title: `Comment of rule ${rule.number}`, content: el('label', { class: 'field' }, 'Comment', input), buttons: [{ label: 'Continue', primary: true, action: () => ({ text: input.value }) }],
      });
      return text ? edit('Comment', [rule], () => `comment ${rule.id} ${quoted(text.text) || '""'}`) : false;
    }

    /** The layer-7 patterns that the rules use. */
    const patterns = el('button', { type: 'button', text: 'Layer-7 patterns', title: 'The regular expressions of layer7-protocol' });
    patterns.addEventListener('click', () => dialog({
      title: 'Layer-7 patterns',
      content: document.patterns.length === 0 ? el('p', { text: 'The rules have no layer-7 patterns.' })
        : plainTable('Layer-7 patterns', [['Name'], ['Regular expression', 'mono'], ['Comment']], document.patterns.map((one) => [one.name, one.regexp, one.comment])),
      cancel: 'Close',
    }));

    const needs = [];
    /** A button for some number of selected rules. */
    const button = (text, title, fits, action) => {
      const element = el('button', { type: 'button', text, title });
      element.addEventListener('click', () => run(() => action(table.selected.filter((rule) => !rule.dynamic))));
      needs.push(() => { element.disabled = !fits(table.selected); });
      return element;
    };
    const some = (rules) => rules.length > 0 && rules.every(isEditable);
    const one = (rules) => rules.length === 1 && isEditable(rules[0]);
    const shownTab = () => tabsOf(document.rules).find(({ key }) => key === tab) ?? { menu: '', chain: '' };
    const buttons = mayEdit ? [
      button('Add', 'Add a rule before the selected one, or at the end', () => true, (rules) => changes.add(context, {
        base: document.revision, menu: changes.menuOf(rules[0] ?? shownTab()), chain: rules[0]?.chain ?? shownTab().chain, before: rules[0], rules: document.rules,
      })),
      button('Edit', 'Change the properties (Enter)', one, ([rule]) => changes.change(context, { base: document.revision, rule, rules: document.rules })),
      button('Copy', 'Add a rule like this one before it', one, ([rule]) => changes.add(context, { base: document.revision, menu: changes.menuOf(rule), before: rule, like: rule, rules: document.rules })),
      button('Enable', 'Enable the rules', (rules) => some(rules) && rules.some((rule) => rule.disabled), (rules) => edit(`Enable ${many(rules)}`, rules, (rule) => `enable ${rule.id}`)),
      button('Disable', 'Disable the rules', (rules) => some(rules) && rules.some((rule) => !rule.disabled), (rules) => edit(`Disable ${many(rules)}`, rules, (rule) => `disable ${rule.id}`)),
      button('Comment', 'Change the comment', one, ([rule]) => comment(rule)),
      button('Up', 'Move up (Alt and arrow up)', some, (rules) => step(rules, -1)),
      button('Down', 'Move down (Alt and arrow down)', some, (rules) => step(rules, 1)),
      button('Remove', 'Remove the rules (Delete)', some, (rules) => edit(`Remove ${many(rules)}`, rules, (rule) => `remove ${rule.id}`)),
      button('Undo', 'Return to the rules before the last change', () => true, () => changes.undo(context)),
    ] : [];
    if (context.can('operate')) {
      const reset = el('button', { type: 'button', text: 'Reset counters', title: 'Set the counters of the selected rules, or of all, to zero' });
      reset.addEventListener('click', () => run(async () => {
        const { selected } = table;
        const all = `The packets and bytes of all ${number(document.rules.length)} rules become 0, also of rules that the filter hides.`;
        if (selected.length === 0 && !(await ask('Reset all counters', all, 'Reset'))) return false;
        await context.api.post(['rules', 'reset-counters'], { rules: selected.map((rule) => rule.id) });
        return true;
      }));
      buttons.push(reset);
    }
    buttons.push(patterns);

    function drawSelection() {
      needs.forEach((update) => update());
      const [rule] = table.selected;
      detail.hidden = !rule || table.selected.length !== 1;
      if (detail.hidden) return;
      const found = lints.get(rule.id) ?? [];
      // The whole rule: a narrow window has few columns. In place: text that is selected stays selected.
      patch(detail,
        el('p', {}, el('code', { text: rule.id }), ` · ${rule.number} · ${rule.menu} · ${rule.origin.source}${rule.line ? `, line ${rule.line}` : ''}`),
        el('p', {}, el('code', { text: written(ofRule(rule)) })),
        el('p', { class: 'soft', text: `${number(rule.counter.packets)} packets, ${bytes(rule.counter.bytes)}; ${rate(of(rule, 'packets'))}, ${bitRate(of(rule, 'bytes'))}` }),
        rule.invalid ? el('div', { class: 'problem outage', text: rule.invalid }) : null,
        found.map((lint) => el('div', { class: 'problem', text: `${lint.code} ${lint.message}${lint.remedy ? `: ${lint.remedy}` : ''}` })));
    }

    function drawTabs() {
      const all = [{ key: '', label: 'all' }, ...tabsOf(document.rules)];
      if (wanted.chain !== null) {
        tab = all.find(({ chain }) => chain === wanted.chain)?.key ?? '';
        wanted.chain = null;
      }
      if (!all.some(({ key }) => key === tab)) tab = '';
      if (tabs.childElementCount !== all.length || all.some(({ key }, at) => tabs.children[at].dataset.key !== key)) {
        tabs.replaceChildren(...all.map(({ key, label }) => {
          const element = el('button', { type: 'button', class: 'plain', text: label, 'data-key': key });
          element.addEventListener('click', () => { tab = key; draw(); });
          return element;
        }));
      }
      for (const element of tabs.children) element.setAttribute('aria-pressed', String(element.dataset.key === tab));
    }

    function draw() {
      drawTabs();
      const fits = filter(line.value);
      const rules = document.rules.filter((rule) => (tab === '' || keyOf(rule) === tab) && fits(rule));
      table.setRows(rules);
      setText(shown, rules.length === document.rules.length ? `${number(rules.length)} rules` : `${number(rules.length)} of ${number(document.rules.length)} rules`);
      if (wanted.rule && table.select(wanted.rule)) wanted.rule = null;
    }
    line.addEventListener('input', draw);

    /** Reads the rules, and their lints if they are others than before. */
    async function read() {
      const found = await context.api.get('rules', { signal: context.signal });
      keepRates(found.rules, document.rules);
      document = found;
      draw();
      if (found.order !== orderOfLints) {
        const { lints: all } = await context.api.get('lints', { signal: context.signal });
        lints = Map.groupBy(all.filter((lint) => lint.id), (lint) => lint.id);
        orderOfLints = found.order;
        table.refresh();
      }
      drawSelection();
    }

    /** Reads the counters; the whole rules only if they are others than the shown ones. */
    async function readCounters() {
      const { order } = document;
      if (order === null) return read();
      try {
        const now = await context.api.get(countersOf(document), { signal: context.signal });
        // A change of this page may have read other rules meanwhile.
        if (document.order !== order) return undefined;
        count(document.rules, counted, now);
        counted = now;
        drawSelection();
        return table.refresh({ sorts: true });
      } catch (failure) {
        if (failure.code === 'other-rules') return read();
        throw failure;
      }
    }

    root.append(el('h1', { class: 'visually-hidden', text: 'Rules' }),
      el('div', { class: 'toolbar' }, tabs, el('span', { class: 'space' }), line, shown),
      el('div', { class: 'toolbar' }, buttons), table.element, detail);
    drawSelection();
    context.every(1, readCounters);
  },
};
