// The doors, the sources at them, and what happens there.

import { ask, duration, el, number, setText, time, toast } from '../dom.js';
import { pathOf } from '../api.js';
import { follow } from '../events.js';
import { doorOf, networkText, removeEntry, secondsLeft, toKey, toText } from '../entries.js';
import { failureText, oneAddress, sourceDialog } from '../source.js';
import { Table } from '../table.js';

/** Seconds between two reads without an event: first steps of knocks are no events. */
const EVERY = 1;
/** Sources of each kind that are read. */
const MOST_SOURCES = 500;
/** Events that are kept. */
const MOST_EVENTS = 500;
const KINDS = 'granted,listed,stepped,refreshed,removed,flushed,expired,evicted,bulk';

/** The steps of a knock: `1. tcp/7000 syn  2. udp/4321 with its passphrase`. */
const stepsText = (steps) => steps.map((step, at) => `${at + 1}. ${step}`).join('  ');

/** An event at a door in words; null for one that another event tells as well. */
function eventText(event, countOf) {
  const [door, part] = doorOf(event.list);
  const { entry } = event;
  const cause = entry?.cause ?? '';
  if (part === 'knocking') {
    if (event.kind === 'stepped') return `took step ${entry.steps} of ${countOf(door)}`;
    if (event.kind === 'expired') return `knock ended after step ${entry.steps}: the next step did not arrive in time`;
    if (event.kind === 'evicted') return `knock ended after step ${entry.steps}: the lists were full`;
    // The last step removes the progress, and so does another packet: the number of openings tells them apart.
    return event.kind === 'removed' && cause === 'packet' ? null : `knock ended after step ${entry?.steps ?? 0} (${cause || event.kind})`;
  }
  if (part === 'closing') return event.kind === 'stepped' ? `took step ${entry.steps} of the closing knock` : null;
  const until = entry?.expires ? `until ${time(entry.expires)}` : 'without end';
  const by = { packet: 'by a knock', operator: 'by an operator', rules: 'by a change of the configuration', restore: 'restored at a start', peer: 'by another node' }[cause] ?? cause;
  return {
    granted: `door opened ${by}, ${until}`,
    listed: `door opened ${by}, ${until}`,
    refreshed: `stays open ${by}, ${until}`,
    removed: cause === 'packet' ? 'door closed by the closing knock' : `door closed ${by}`,
    flushed: `all grants ended ${by}`,
    expired: 'door closed: its time is over',
    evicted: 'door closed: the lists were full',
    bulk: `many entries changed ${by}`,
  }[event.kind] ?? event.kind;
}

const CLASS_OF = { granted: 'good-row', listed: 'good-row', failed: 'bad-row', gap: 'bad-row' };

export default {
  title: 'Doors',
  enter(root, context) {
    const mayClose = context.can('operate');
    let chosen = context.path[0] ?? '';
    let answer = { doors: [], open: [], knocking: [], ignored: [], truncated: false };
    let readAt = performance.now();
    let failedBefore = null;
    let serial = 0;
    const happened = [];

    const knockOf = (door) => answer.doors.find((one) => one.door === door)?.knock;
    const countOf = (door) => knockOf(door)?.length ?? '?';
    const left = (row) => secondsLeft(row, readAt);

    const doors = new Table({
      label: 'Doors',
      columns: [
        { key: 'door', title: 'Door', width: 'minmax(90px, 1fr)', value: (row) => row.door },
        { key: 'knock', title: 'Knock', width: 'minmax(120px, 3fr)', value: (row) => stepsText(row.knock) },
        { key: 'opens', title: 'Opens', width: 'minmax(90px, 1fr)', priority: 2, value: (row) => row.opens.join(', ') || 'everything' },
        { key: 'open', title: 'In', width: '60px', number: true, value: (row) => number(row.open), sort: (row) => row.open },
        { key: 'knocking', title: 'Knocking', width: '80px', number: true, value: (row) => number(row.knocking), sort: (row) => row.knocking },
        { key: 'opened', title: 'Opened', width: '80px', number: true, priority: 2, value: (row) => number(row.opened), sort: (row) => row.opened },
        { key: 'closed', title: 'Closed', width: '80px', number: true, priority: 3, value: (row) => number(row.closed), sort: (row) => row.closed },
        { key: 'close', title: 'Closing knock', width: 'minmax(90px, 1fr)', priority: 3, value: (row) => stepsText(row.close) || '–' },
        {
          key: 'steps', title: 'Steps taken', width: 'minmax(240px, 2fr)', priority: 2, sort: false,
          value: (row) => row.steps.map((count, at) => `${at === row.steps.length - 1 ? 'opens' : `step ${at + 1}`}: ${number(count)}`).join(' → '),
        },
        {
          key: 'failed', title: 'Failed', width: 'minmax(200px, 2fr)', priority: 2, sort: (row) => row.failed.reduce((sum, one) => sum + one.times, 0),
          value: (row) => row.failed.filter((one) => one.times > 0).map((one) => `${one.reason} ${number(one.times)}`).join(', ') || '–',
        },
      ],
      key: (row) => row.door,
      reads: true,
      empty: 'The configuration has no doors. Add a [[door]] to it, and reload it.',
      onSelect: (rows) => choose(rows.length === 1 ? rows[0].door : ''),
    });
    const progress = ({ door, steps }) => `step ${steps} of ${countOf(door)}, next: ${knockOf(door)?.[steps] ?? '?'}`;
    const stateOf = (row) => (row.kind === 'ignored' ? `ignored: ${failureText(row.reason)}` : row.kind === 'open' ? 'is in' : progress(row));
    const sources = new Table({
      label: 'Sources at doors',
      columns: [
        { key: 'door', title: 'Door', width: '90px', value: (row) => row.door ?? 'all' },
        { key: 'address', title: 'Source', width: 'minmax(110px, 1fr)', value: (row) => [row.address, networkText(row)].filter(Boolean).join(' ') },
        { key: 'state', title: 'State', width: 'minmax(90px, 2fr)', value: stateOf },
        { key: 'left', title: 'Time left', width: '80px', number: true, value: (row) => { const rest = left(row); return rest === null ? '–' : duration(Math.ceil(rest)); }, sort: (row) => row.time_left_seconds ?? Infinity },
        { key: 'to', title: 'To', width: 'minmax(110px, 1fr)', priority: 2, value: (row) => (row.kind === 'ignored' ? '' : toText(row.to)) },
      ],
      key: (row) => [row.kind, row.door, row.address, row.vlan, row.pppoe, toKey(row.to), row.reason].join(' '),
      rowClass: (row) => ({ open: 'good-row', ignored: 'dimmed' }[row.kind] ?? ''),
      reads: true,
      empty: 'No source is at a door.',
      onOpen: (row) => show(row.address),
      onSelect: () => drawSelection(),
      onKey: (event, rows) => event.key === 'Delete' && mayClose && rows.some(isGrant) && (close(rows.filter(isGrant)), true),
    });
    const events = new Table({
      label: 'Events at doors',
      columns: [
        { key: 'time', title: 'Time', width: '76px', value: (row) => time(row.time).slice(11), sort: (row) => row.time },
        { key: 'door', title: 'Door', width: '90px', value: (row) => row.door },
        { key: 'source', title: 'Source', width: 'minmax(110px, 1fr)', priority: 2, value: (row) => row.source },
        { key: 'text', title: 'Event', width: 'minmax(140px, 3fr)', value: (row) => row.text },
      ],
      key: (row) => row.serial,
      rowClass: (row) => CLASS_OF[row.kind] ?? '',
      empty: 'No event since this view was opened. First steps of a knock are no events: they are in the table above.',
      onOpen: (row) => row.source && show(row.source),
    });

    const few = el('div', { class: 'few' }, doors.element);
    const door = el('select', { 'aria-label': 'Door' });
    const shown = el('span', { class: 'soft' });
    const state = el('button', { type: 'button', text: 'State of the source', title: 'What is known of the selected source (Enter)', on: { click: () => show(sources.selected[0].address) } });
    const shut = mayClose ? el('button', { type: 'button', text: 'Close the door', title: 'End the selected grants (Delete)', on: { click: () => close(sources.selected.filter(isGrant)) } }) : null;
    door.addEventListener('change', () => { if (!doors.select(door.value)) choose(door.value); });

    const isGrant = (row) => row.kind === 'open';
    function choose(name) {
      chosen = name;
      draw();
    }
    const show = (address) => sourceDialog(context, address);
    function drawSelection() {
      const rows = sources.selected;
      state.disabled = rows.length !== 1 || oneAddress(rows[0].address) === null;
      if (shut) shut.disabled = !rows.some(isGrant);
    }
    function draw() {
      const names = ['', ...new Set([...answer.doors.map((one) => one.door), ...(chosen ? [chosen] : [])])];
      if (door.options.length !== names.length || names.some((name, at) => door.options[at].value !== name)) {
        door.replaceChildren(...names.map((name) => el('option', { value: name, text: name || 'all doors' })));
      }
      if (door.value !== chosen) door.value = chosen;
      const isHere = (row) => !chosen || row.door === chosen || (row.door ?? null) === null;
      doors.setRows(answer.doors);
      few.style.setProperty('--rows', answer.doors.length + 1);
      sources.setRows([
        ...answer.knocking.map((row) => ({ ...row, kind: 'knocking' })),
        ...answer.open.map((row) => ({ ...row, kind: 'open' })),
        ...answer.ignored.map((row) => ({ ...row, kind: 'ignored' })),
      ].filter(isHere));
      events.setRows(happened.filter(isHere));
      setText(shown, answer.truncated ? `Only the first ${number(MOST_SOURCES)} sources of each kind are shown.` : '');
      drawSelection();
    }
    function tell(row) {
      happened.unshift({ serial: String(serial += 1), source: '', ...row });
      happened.length = Math.min(happened.length, MOST_EVENTS);
    }

    // Failed steps are no events: the counters tell that there were some.
    function tellFailed(found) {
      const now = Object.fromEntries(found.map((one) => [one.door, Object.fromEntries(one.failed.map(({ reason, times }) => [reason, times]))]));
      for (const [name, reasons] of Object.entries(now)) {
        for (const [reason, times] of Object.entries(reasons)) {
          const more = times - (failedBefore?.[name]?.[reason] ?? times);
          if (more > 0) tell({ kind: 'failed', time: new Date().toISOString(), door: name, text: `${more === 1 ? 'a step' : `${number(more)} steps`} failed: ${failureText(reason)}` });
        }
      }
      failedBefore = now;
    }

    let reading = null;
    let isStale = false;
    /** Reads the doors; a call while an answer is awaited reads once more behind it. */
    async function read() {
      if (reading) { isStale = true; return reading; }
      reading = (async () => {
        do {
          isStale = false;
          const found = await context.api.get(pathOf('doors', { limit: MOST_SOURCES }), { signal: context.signal });
          readAt = performance.now();
          answer = found;
          tellFailed(found.doors);
          draw();
        } while (isStale);
      })();
      try {
        await reading;
      } finally {
        reading = null;
      }
    }

    async function close(grants) {
      const pairsOf = [...new Map(grants.map((row) => [`${row.door} ${row.address}`, row])).values()];
      const names = pairsOf.slice(0, 10).map((row) => `door ${row.door} for ${row.address}`).join(', ');
      const more = pairsOf.length > 10 ? `, and ${pairsOf.length - 10} more` : '';
      if (!await ask('Close the door', `Close ${names}${more}? A grant ends for all destinations. Connections continue, unless the door has cut = true.`, 'Close the door')) return;
      let done = 0;
      try {
        for (const row of pairsOf) {
          await removeEntry(`door-${row.door}`, row.address);
          done += 1;
        }
        toast(`Closed: ${names}${more}.`);
      } catch (failure) {
        if (failure.name !== 'AbortError') toast(new Error(`${done} of ${pairsOf.length} grants were ended. ${failure.message}`));
      }
      read().catch(() => {});
    }

    root.append(el('h1', { class: 'visually-hidden', text: 'Doors' }),
      few,
      el('div', { class: 'toolbar' }, door, state, shut, el('span', { class: 'space' }), shown),
      el('div', { class: 'fill' }, sources.element),
      el('div', { class: 'fill' }, events.element));

    let due = 0;
    const soon = () => {
      if (due) return;
      // Many events at once need one read.
      due = setTimeout(() => { due = 0; read().catch(() => {}); }, 50);
    };
    follow({ kind: KINDS }, {
      signal: context.signal,
      onEvent(event) {
        if (event.kind === 'gap') tell({ kind: 'gap', time: event.time, text: 'events are missing: the tables above are complete' });
        else if (event.kind === 'start') tell({ kind: 'start', time: event.time, text: 'the dataplane has started' });
        else {
          const [name] = doorOf(event.list);
          if (!name) return;
          const text = eventText(event, countOf);
          if (text) tell({ kind: event.kind, time: event.time, door: name, source: event.source ?? '', text });
        }
        soon();
      },
    });
    context.every(EVERY, read);
    const timer = setInterval(() => sources.refresh(), 250);
    context.signal.addEventListener('abort', () => { clearInterval(timer); clearTimeout(due); });
    drawSelection();
  },
};
