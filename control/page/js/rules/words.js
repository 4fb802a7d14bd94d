// The words of RouterOS in the rules view: properties of a rule, and the filter line.

/** The menus of rules in their order: the path, the name in the API, and the words before the names of their chains. */
export const MENUS = [
  { path: '/ip firewall filter', name: 'ip-filter', words: '' }, { path: '/ip firewall raw', name: 'ip-raw', words: 'raw ' },
  { path: '/ipv6 firewall filter', name: 'ipv6-filter', words: 'IPv6 ' }, { path: '/ipv6 firewall raw', name: 'ipv6-raw', words: 'IPv6 raw ' },
];

/** Splits a text at blanks outside of quotes. */
export function split(text) {
  return text.match(/(?:"(?:\\.|[^"\\])*"?|[^\s"])+/gs) ?? [];
}

/** `name=value` words as a Map, in their order. A word without `=` is an error. */
export function properties(text) {
  const found = new Map();
  for (const word of split(text)) {
    const at = word.indexOf('=');
    if (at <= 0) throw new Error(`\`${word}\` is not a property: write name=value, with blanks of a value in quotes`);
    const name = word.slice(0, at);
    if (found.has(name)) throw new Error(`\`${name}\` is there twice: remove one of them`);
    found.set(name, word.slice(at + 1));
  }
  return found;
}

/** A text as a value: in quotes if it needs them. */
export function quoted(text) {
  if (/^[A-Za-z0-9_.:/@*+\-,]+$/.test(text)) return text;
  return `"${text.replace(/["\\$?]/g, '\\$&').replaceAll('\n', '\\n')}"`;
}

const IN_QUOTES = /^"(?:\\.|[^"\\])*"$/s;

/** A value as it is written: a value in quotes, and one that needs none, as they are. */
export function asWritten(value) {
  return IN_QUOTES.test(value) || /^[^\s"\\$?;#[\](){}]+$/.test(value) ? value : quoted(value);
}

/** A written value without its quotes, unless it has other escapes than those of `quoted` in one line, or is in quotes twice. */
export function plain(value) {
  if (!/^"(?:\\[\\"$?]|[^"\\])*"$/s.test(value)) return value;
  const text = value.slice(1, -1).replace(/\\(.)/g, '$1');
  return IN_QUOTES.test(text) ? value : text;
}

/** The commands of one rule that change `before` into `after`, Maps of names and values, or null if they are equal. */
export function setCommand(id, before, after) {
  const words = [];
  for (const [name, value] of after) if (!before.has(name) || plain(before.get(name)) !== plain(value)) words.push(`${name}=${value}`);
  // These two have a value without the property.
  const without = { disabled: 'disabled=no', comment: 'comment=""' };
  for (const name of before.keys()) if (!after.has(name)) words.push(without[name] ?? `!${name}`);
  return words.length === 0 ? null : `set ${id} ${words.join(' ')}`;
}

/** The properties of a rule of the API, with chain, action and comment first, as `properties` returns them. */
export function ofRule(rule) {
  const all = new Map([['chain', rule.chain], ['action', rule.action]]);
  for (const [name, value] of Object.entries(rule.properties)) all.set(name, asWritten(value));
  if (rule.comment) all.set('comment', quoted(rule.comment));
  if (rule.disabled) all.set('disabled', 'yes');
  return all;
}

export const written = (words) => [...words].map(([name, value]) => `${name}=${value}`).join(' ');

/**
 * The filter of a line: `chain=input dst-port=22 src-address-list~office !dynamic word`. All terms must hold. `=` compares the whole
 * value, `~` a part of it, `!` reverses a term, and a word alone is searched in all properties and in the comment.
 */
export function filter(text) {
  const terms = split(text.toLowerCase()).map((word) => {
    const negated = word.startsWith('!');
    const term = negated ? word.slice(1) : word;
    const [, name, operator, value] = /^([a-z0-9-]+)([=~])(.*)$/s.exec(term) ?? [null, null, null, term];
    // The closing quote may not be typed yet.
    const wanted = plain(value).replace(/^"|"$/g, '');
    const fits = (rule) => {
      if (!name) {
        if (['dynamic', 'disabled', 'invalid'].includes(wanted)) return Boolean(rule[wanted]);
        return `${rule.number} ${rule.id} ${written(ofRule(rule))}`.toLowerCase().includes(wanted);
      }
      const of = { chain: rule.chain, action: rule.action, comment: rule.comment, id: rule.id, disabled: rule.disabled ? 'yes' : 'no', dynamic: rule.dynamic ? 'yes' : 'no' };
      const found = String(of[name] ?? plain(rule.properties[name] ?? '')).toLowerCase();
      return operator === '~' ? found.includes(wanted) : found === wanted;
    };
    return (rule) => fits(rule) !== negated;
  });
  return (rule) => terms.every((term) => term(rule));
}
