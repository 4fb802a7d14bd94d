// The doors, and the sources at them.

import { duration, el, number } from '../dom.js';
import { Table } from '../table.js';

const sources = ({ knocking, open, ignored }) => [
  ...open.map((one) => ({ ...one, state: 'open' })),
  ...knocking.map((one) => ({ ...one, state: `step ${one.steps ?? ''}`.trim() })),
  ...ignored.map((one) => ({ ...one, state: `ignored: ${one.reason}` })),
];

export default {
  title: 'Doors',
  enter(root, context) {
    const doors = new Table({
      label: 'Doors',
      columns: [
        { key: 'door', title: 'Door', width: 'minmax(120px, 1fr)', value: (door) => door.door },
        { key: 'open', title: 'Open', width: '80px', number: true, value: (door) => door.open },
        { key: 'knocking', title: 'Knocking', width: '90px', number: true, value: (door) => door.knocking },
        { key: 'opened', title: 'Opened', width: '100px', number: true, priority: 2, value: (door) => number(door.opened), sort: (door) => door.opened },
        { key: 'steps', title: 'Steps', width: '160px', priority: 3, value: (door) => door.steps.map(number).join(' → ') },
      ],
      key: (door) => door.door,
      empty: 'The configuration has no doors.',
    });
    const at = new Table({
      label: 'Sources at doors',
      columns: [
        { key: 'door', title: 'Door', width: '120px', value: (one) => one.door ?? 'all' },
        { key: 'address', title: 'Source', width: 'minmax(150px, 1fr)', value: (one) => one.address },
        { key: 'state', title: 'State', width: '160px', value: (one) => one.state },
        { key: 'left', title: 'Time left', width: '110px', number: true, value: (one) => duration(one.time_left_seconds), sort: (one) => one.time_left_seconds ?? Infinity },
      ],
      key: (one) => [one.state, one.door, one.address, one.vlan, one.pppoe, one.to?.address].join(' '),
      empty: 'No source is at a door.',
    });
    root.append(el('h1', { class: 'visually-hidden', text: 'Doors' }), el('div', { class: 'fill' }, doors.element), el('div', { class: 'fill' }, at.element));
    context.every(2, async () => {
      const answer = await context.api.get('doors', { signal: context.signal });
      doors.setRows(answer.doors);
      at.setRows(sources(answer));
    });
  },
};
