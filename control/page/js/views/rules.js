// The running rules.

import { bytes, el, number, toast } from '../dom.js';
import { Table } from '../table.js';

const words = (rule) => Object.entries(rule.properties).map(([name, value]) => `${name}=${value}`).join(' ');

export default {
  title: 'Rules',
  enter(root, context) {
    const table = new Table({
      label: 'Rules',
      columns: [
        { key: 'number', title: '#', width: '110px', value: (rule) => String(rule.number) },
        { key: 'chain', title: 'Chain', width: '80px', value: (rule) => rule.chain },
        { key: 'action', title: 'Action', width: '130px', value: (rule) => rule.action },
        { key: 'words', title: 'Properties', width: 'minmax(220px, 1fr)', value: words },
        { key: 'bytes', title: 'Bytes', width: '96px', number: true, priority: 3, value: (rule) => bytes(rule.counter.bytes), sort: (rule) => rule.counter.bytes },
        { key: 'packets', title: 'Packets', width: '110px', number: true, priority: 2, value: (rule) => number(rule.counter.packets), sort: (rule) => rule.counter.packets },
      ],
      key: (rule) => rule.id,
      heading: (rule) => rule.comment || rule.invalid,
      rowClass: (rule) => (rule.disabled || rule.invalid ? 'dimmed' : ''),
      empty: 'No rules: the default of each chain decides.',
    });
    root.append(el('h1', { class: 'visually-hidden', text: 'Rules' }), table.element);
    context.every(2, async () => {
      try {
        table.setRows((await context.api.get('rules', { signal: context.signal })).rules);
      } catch (failure) {
        if (failure.code === 'failed') toast(failure);
        throw failure;
      }
    });
  },
};
