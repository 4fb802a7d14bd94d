// Events as they happen.

import { el, time } from '../dom.js';
import { follow } from '../events.js';
import { Table } from '../table.js';

/** Events that are kept. */
const MOST = 2000;

const about = (event) => event.packet?.line
  ?? event.operator?.action
  ?? (event.omitted && `${event.omitted.lines} packets without a line of their own`)
  ?? [event.door && `door ${event.door}`, event.list && `list ${event.list}`, event.entry?.origin].filter(Boolean).join(', ');

export default {
  title: 'Live',
  enter(root, context) {
    const rows = [];
    let serial = 0;
    const table = new Table({
      label: 'Events',
      columns: [
        { key: 'time', title: 'Time', width: '150px', value: (event) => time(event.time), sort: (event) => event.time },
        { key: 'kind', title: 'Kind', width: '90px', value: (event) => event.kind },
        { key: 'source', title: 'Source', width: '160px', value: (event) => event.source },
        { key: 'about', title: 'What', width: 'minmax(240px, 1fr)', priority: 2, value: about },
      ],
      key: (event) => event.serial,
      empty: 'No event since this view was opened.',
    });
    root.append(el('h1', { class: 'visually-hidden', text: 'Live' }), table.element);
    let isDue = false;
    follow({}, {
      signal: context.signal,
      onEvent(event) {
        rows.unshift({ ...event, serial: String(serial += 1) });
        rows.length = Math.min(rows.length, MOST);
        if (isDue) return;
        isDue = true;
        requestAnimationFrame(() => { isDue = false; table.setRows([...rows]); });
      },
    });
    table.setRows([]);
  },
};
