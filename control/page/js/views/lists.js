// The entries of the address lists.

import { duration, el } from '../dom.js';
import { Table } from '../table.js';

export default {
  title: 'Lists',
  enter(root, context) {
    const table = new Table({
      label: 'Entries of address lists',
      columns: [
        { key: 'list', title: 'List', width: '160px', value: (entry) => entry.list },
        { key: 'address', title: 'Address', width: 'minmax(180px, 1fr)', value: (entry) => entry.address },
        { key: 'left', title: 'Timeout', width: '120px', number: true, value: (entry) => duration(entry.time_left_seconds), sort: (entry) => entry.time_left_seconds ?? Infinity },
        { key: 'origin', title: 'Origin', width: '100px', priority: 2, value: (entry) => (entry.of_rules ? 'rules' : entry.dynamic ? 'packets' : 'operator') },
      ],
      key: (entry) => [entry.list, entry.address, entry.vlan, entry.pppoe, entry.to?.address, entry.line].join(' '),
      empty: 'No entries.',
    });
    root.append(el('h1', { class: 'visually-hidden', text: 'Lists' }), table.element);
    context.every(2, async () => table.setRows((await context.api.get('lists', { signal: context.signal })).entries));
  },
};
