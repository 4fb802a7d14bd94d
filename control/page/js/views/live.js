// Events as they happen, and the traffic of the last ten minutes.

import { pathOf } from '../api.js';
import { el, number, pairs, setText, time, timeElement } from '../dom.js';
import { toText } from '../entries.js';
import { follow } from '../events.js';
import { oneAddress, sourceDialog } from '../source.js';
import { showTrace } from '../live/trace.js';
import { trafficPanel } from '../live/traffic.js';
import { Table } from '../table.js';

/** Events that are kept. */
const MOST = 2000;
/** Milliseconds between two draws of the table. */
const DRAW_EVERY = 200;

/** The time of the day: the date is among the details. */
const clock = new Intl.DateTimeFormat('sv', { timeStyle: 'medium' });

/** The kinds, and what they mean: docs/monitor.md. */
const KINDS = {
  granted: 'a door opened', listed: 'an address was added', stepped: 'a step of a knock', refreshed: 'an entry was prolonged', removed: 'an entry was removed',
  flushed: 'a list was emptied', expired: 'an entry expired', evicted: 'an entry made room', bulk: 'many entries changed', packet: 'a rule logged it', operator: 'an operator changed something',
};
const FILTERS = { door: 'door', list: 'list', source: 'address or prefix', rule: 'rule: id or number' };

function gapText({ first, last, found, operator_changes: changes }) {
  if (changes > 0) return `${number(changes)} changes by operators are missing`;
  const which = last === null ? `events from ${first} on, of a start that has ended,` : first === last ? `event ${first}` : `events ${first} to ${last}`;
  return `Missing: ${which}${found > 0 ? `; ${number(found)} that the lists still have follow` : ''}`;
}

function about(event) {
  if (event.packet) return event.packet.line;
  if (event.omitted) return `${number(event.omitted.lines)} logged packets are not shown`;
  if (event.gap) return gapText(event.gap);
  if (event.lost) return 'The stream was interrupted: events can be missing';
  if (event.start) return `The dataplane started, with ${number(event.start.restored)} restored entries`;
  if (event.operator) return [event.operator.action, event.list && `list ${event.list}`, event.operator.error && `failed: ${event.operator.error}`].filter(Boolean).join(', ');
  const { entry } = event;
  return [event.door && `door ${event.door}`, event.list && `list ${event.list}`, entry?.to && `to ${toText(entry.to)}`, entry?.steps > 0 && `step ${entry.steps}`,
    entry?.cause && `cause ${entry.cause}`, entry?.expires && `${event.kind === 'removed' ? 'had time until' : 'until'} ${time(entry.expires)}`].filter(Boolean).join(', ');
}

/** Whether the state of a source can be shown. */
const isSingle = (source) => Boolean(source) && oneAddress(source) !== null;

/** The message of the API about a filter, which a stream of events does not tell; null if the filter is valid. */
async function refusal(query, signal) {
  const end = new AbortController();
  const answer = await fetch(pathOf('events', query), { signal: AbortSignal.any([signal, end.signal]) });
  const text = answer.status === 400 ? (await answer.json()).message : null;
  end.abort();
  return text;
}

export default {
  title: 'Live',
  enter(root, context) {
    let rows = [];
    let serial = 0;
    let paused = null;
    let stream = null;
    let due = 0;

    const table = new Table({
      label: 'Events',
      columns: [
        { key: 'time', title: 'Time', width: '76px', value: (event) => clock.format(new Date(event.time)), sort: (event) => event.time },
        { key: 'kind', title: 'Kind', width: '80px', value: (event) => event.kind },
        { key: 'source', title: 'Source', width: '150px', value: (event) => event.source },
        { key: 'rule', title: 'Rule', width: '110px', priority: 3, value: (event) => event.rule && (event.rule.number ?? event.rule.id) },
        { key: 'about', title: 'What', width: 'minmax(80px, 1fr)', value: about },
      ],
      key: (event) => event.serial,
      rowClass: (event) => (event.gap || event.lost ? 'bad-row' : event.kind === 'omitted' ? 'dimmed' : ''),
      tells: false,
      empty: 'No event since this view was opened.',
      onSelect: ([event]) => drawDetail(event),
      onOpen: (event) => isSingle(event.source) && source(event.source),
    });
    const detail = el('section', { class: 'detail', 'aria-label': 'Selected event', hidden: true });

    const trace = (address) => showTrace(context, `src ${address}`);
    const mayTrace = context.can('operate');
    async function source(address) {
      const next = await sourceDialog(context, address, mayTrace ? [{ label: 'Trace', action: () => 'trace' }] : []);
      if (next === 'trace') trace(address);
    }

    function drawDetail(event) {
      detail.hidden = !event;
      if (!event) return;
      const button = (text, action) => el('button', { type: 'button', text, on: { click: action } });
      detail.replaceChildren(
        el('p', { class: 'actions' },
          event.rule && el('a', { href: `#/rules?rule=${encodeURIComponent(event.rule.id)}`, text: `Rule ${event.rule.number ?? event.rule.id}` }),
          isSingle(event.source) && [button('Source', () => source(event.source)), mayTrace && button('Trace', () => trace(event.source))]),
        pairs([['Time', timeElement(event.time)], ['What', `${event.kind}: ${about(event)}`], ...(event.id ? [['Id', el('code', { text: event.id })]] : [])]));
    }

    // ---- The stream

    const pause = el('button', { type: 'button' });
    const state = el('span', { class: 'soft', role: 'status' });
    const problem = el('p', { class: 'error-text', role: 'alert', hidden: true });

    function draw() {
      due = 0;
      if (paused === null) table.setRows([...rows]);
      const text = paused === null ? 'Pause' : `Continue (${number(Math.min(serial - paused, MOST))} new)`;
      setText(pause, text);
      pause.setAttribute('aria-pressed', String(paused !== null));
    }
    function add(event) {
      serial += 1;
      rows.unshift({ ...event, serial: String(serial) });
      if (rows.length > MOST) rows.length = MOST;
      if (!due) due = setTimeout(draw, DRAW_EVERY);
    }
    pause.addEventListener('click', () => { paused = paused === null ? serial : null; draw(); });

    const kind = el('select', { 'aria-label': 'Kind' }, el('option', { value: '', text: 'all kinds' }),
      Object.entries(KINDS).map(([name, meaning]) => el('option', { value: name, text: name, title: meaning })));
    const inputs = Object.entries(FILTERS).map(([name, placeholder]) => el('input', { name, type: 'search', class: 'event-filter', 'aria-label': placeholder, placeholder, spellcheck: 'false', autocomplete: 'off' }));
    for (const element of [...inputs, kind]) element.value = context.query.get(element.name || 'kind') ?? '';
    const form = el('form', { class: 'toolbar' }, kind, inputs, el('button', { type: 'submit', text: 'Filter' }), pause, state);
    const wanted = () => ({ kind: kind.value, ...Object.fromEntries(inputs.map((input) => [input.name, input.value.trim()])) });

    async function begin() {
      stream?.abort();
      stream = new AbortController();
      const signal = AbortSignal.any([context.signal, stream.signal]);
      const query = wanted();
      problem.hidden = true;
      rows = [];
      paused = null;
      draw();
      drawDetail(null);
      if (Object.values(query).some(Boolean)) {
        try {
          const text = await refusal(query, signal);
          if (text) {
            setText(problem, text);
            problem.hidden = false;
            setText(state, '');
            return;
          }
        } catch {
          // The stream below tries again by itself.
        }
      }
      if (signal.aborted) return;
      let hasId = false;
      let isLost = false;
      follow(query, {
        signal,
        onEvent(event) {
          hasId ||= Boolean(event.id);
          add(event);
        },
        onState(now) {
          setText(state, now === 'connected' ? '' : 'interrupted, trying again');
          // Without an id, the stream cannot continue where it ended.
          if (now === 'connected' && isLost && !hasId) add({ kind: 'gap', time: new Date().toISOString(), lost: true });
          isLost = now === 'lost';
        },
      });
    }
    form.addEventListener('submit', (event) => { event.preventDefault(); begin(); });
    kind.addEventListener('change', begin);
    for (const input of inputs) input.addEventListener('search', () => { if (input.value === '') begin(); });
    context.signal.addEventListener('abort', () => clearTimeout(due));

    root.append(el('h1', { class: 'visually-hidden', text: 'Live' }), trafficPanel(context), form, problem, table.element, detail);
    begin();
  },
};
