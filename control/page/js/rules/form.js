// The properties of a rule as a form: rows of names and values, and the whole rule in the words of RouterOS.

import { el } from '../dom.js';
import { asWritten, plain, properties, written } from './words.js';

/** The properties that are suggested, the frequent ones first. A test compares them, and the actions, with the reader of rules. */
const NAMES = [
  'chain', 'action', 'protocol', 'src-address', 'dst-address', 'src-address-list', 'dst-address-list', 'src-port', 'dst-port', 'port',
  'connection-state', 'in-interface', 'out-interface', 'in-interface-list', 'out-interface-list', 'comment', 'disabled', 'log', 'log-prefix',
  'jump-target', 'reject-with', 'address-list', 'address-list-timeout', 'limit', 'dst-limit', 'connection-limit', 'tcp-flags', 'icmp-options',
  'content', 'layer7-protocol', 'tls-host', 'packet-size', 'src-mac-address', 'src-address-type', 'dst-address-type', 'time', 'psd', 'random',
  'nth', 'per-connection-classifier', 'connection-bytes', 'connection-rate', 'connection-nat-state', 'tcp-mss', 'dscp', 'tos', 'ttl', 'hop-limit',
  'fragment', 'ipv4-options', 'headers', 'priority', 'ingress-priority', 'in-bridge-port', 'out-bridge-port', 'in-bridge-port-list',
  'out-bridge-port-list', 'connection-mark', 'packet-mark', 'routing-mark', 'ipsec-policy', 'hw-offload',
];
const YES_OR_NO = ['yes', 'no'];
const ADDRESS_TYPES = ['local', 'broadcast', 'multicast', 'unicast'];
const VALUES = {
  action: [
    'accept', 'drop', 'reject', 'tarpit', 'jump', 'return', 'log', 'passthrough', 'add-src-to-address-list', 'add-dst-to-address-list',
    'fasttrack-connection', 'notrack',
  ],
  protocol: ['tcp', 'udp', 'icmp', 'icmpv6', 'gre', 'ipsec-esp', 'ipsec-ah', 'sctp'],
  'connection-state': ['established,related', 'established,related,untracked', 'new', 'invalid'],
  'reject-with': ['icmp-network-unreachable', 'icmp-host-unreachable', 'icmp-port-unreachable', 'icmp-admin-prohibited', 'tcp-reset'],
  'tcp-flags': ['syn,!ack', 'syn', 'rst', 'fin'],
  'address-list-timeout': ['10s', '1m', '1h', '1d', 'none-dynamic', 'none-static'],
  disabled: YES_OR_NO, log: YES_OR_NO, fragment: YES_OR_NO, 'src-address-type': ADDRESS_TYPES, 'dst-address-type': ADDRESS_TYPES,
};
const LISTS = ['address-list', 'src-address-list', 'dst-address-list'];

/** Values that are suggested for a property: those of all rules, and the known ones. */
function suggested(name, rules) {
  if (LISTS.includes(name)) return [...new Set(rules.flatMap((rule) => LISTS.map((one) => rule.properties[one]?.replace(/^!/, ''))).filter(Boolean))];
  if (name === 'chain' || name === 'jump-target') return [...new Set(rules.map((rule) => rule.chain))];
  return VALUES[name] ?? [];
}

const options = (values) => values.map((value) => el('option', { value }));

/**
 * A form of these properties, a Map of names and written values. Returns `{element, words}`: `words()` returns the present properties as
 * such a Map; an invalid text is an error. The text is what counts: rows write it, and follow it.
 */
export function propertyForm(words, rules) {
  const names = el('datalist', { id: 'property-names' }, options(NAMES));
  const values = el('datalist', { id: 'property-values' });
  const rows = el('div', { class: 'properties', role: 'group', 'aria-label': 'Properties' });
  const text = el('textarea', { rows: '3', spellcheck: 'false', value: written(words) });

  function write() {
    const found = [...rows.children].map((row) => [...row.querySelectorAll('input')].map((input) => input.value.trim()));
    text.value = written(found.filter(([name]) => name !== '').map(([name, value]) => [name, value === '' ? '""' : asWritten(value)]));
  }

  /** Appends a row, and an empty one as soon as its name is written. */
  function append(name = '', value = '') {
    const key = el('input', { value: name, list: 'property-names', 'aria-label': 'Name', placeholder: 'property', spellcheck: 'false' });
    const content = el('input', { value: plain(value), list: 'property-values', 'aria-label': `Value of ${name || 'the property'}`, spellcheck: 'false' });
    const remove = el('button', { type: 'button', class: 'plain', text: '×', 'aria-label': `Remove ${name || 'the property'}` });
    const row = el('div', {}, key, content, remove);
    key.addEventListener('input', () => {
      if (row === rows.lastElementChild && key.value !== '') append();
      write();
    });
    content.addEventListener('focus', () => values.replaceChildren(...options(suggested(key.value.trim(), rules))));
    content.addEventListener('input', write);
    remove.addEventListener('click', () => {
      if (row === rows.lastElementChild) return;
      row.nextElementSibling.querySelector('input').focus();
      row.remove();
      write();
    });
    rows.append(row);
  }

  function follow() {
    let found;
    try {
      found = properties(text.value);
    } catch {
      return; // The text is not complete yet.
    }
    rows.replaceChildren();
    for (const [name, value] of found) append(name, value);
    append();
  }
  text.addEventListener('input', follow);
  follow();
  return {
    element: el('div', {}, names, values, rows, el('label', { class: 'field' }, 'The whole rule, in the words of RouterOS', text)),
    words: () => properties(text.value),
  };
}
