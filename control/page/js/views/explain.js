// The verdict on a packet, rule by rule, and the state of a source.

import { duration, el, plainTable } from '../dom.js';

/** The members of an answer as rows of names and values. */
function rowsOf(value, path = '') {
  if (value === null || typeof value !== 'object') return [[path, String(value)]];
  return Object.entries(value).flatMap(([name, inner]) => rowsOf(inner, path ? `${path}.${name}` : name));
}

/** Why a rule did or did not match. */
const why = (rule) => (rule.outcome === 'missed' ? rule.because ?? 'missed' : rule.because ? `${rule.outcome}: ${rule.because}` : rule.outcome);

function explained(answer) {
  const decided = answer.decided_by === null ? `no rule of ${answer.chain} decided: the default of the chain` : `by rule ${answer.rules[answer.decided_by].number}`;
  const kernel = answer.kernel ? `The kernel’s fast path: ${answer.kernel.verdict}${answer.kernel.because ? `, ${answer.kernel.because}` : ''}.` : '';
  const lists = answer.lists.map((one) => `${one.address} is in ${one.list}${one.time_left_seconds === null ? '' : ` for ${duration(one.time_left_seconds)}`}`);
  return [
    el('p', { class: `verdict ${answer.verdict === 'drop' ? 'bad' : 'good'}`, text: `${answer.verdict} (${answer.reason}), ${decided}` }),
    el('p', {}, el('code', { text: answer.packet }), ` from ${answer.from}. ${kernel}`),
    lists.length > 0 ? el('p', { class: 'soft', text: lists.join('; ') }) : [],
    plainTable('Rules', [['#'], ['Action'], ['Result'], ['Comment']], answer.rules.map((rule) => [
      el('a', { href: `#/rules?rule=${encodeURIComponent(rule.id)}`, text: rule.number }), rule.action,
      el('span', { class: rule.outcome === 'matched' ? 'good' : 'soft', text: why(rule) }), rule.comment])),
  ];
}

export default {
  title: 'Explain',
  enter(root, context) {
    /** A form with one text, whose answer is shown below. */
    const part = (label, text, placeholder, fields, ask) => {
      const input = el('input', { required: true, spellcheck: 'false', autocomplete: 'off', class: 'filter', placeholder, value: text });
      const result = el('div', { class: 'view', 'aria-live': 'polite' });
      const form = el('form', { class: 'toolbar' }, el('label', { class: 'labelled' }, label, input), fields, el('button', { type: 'submit', text: 'Show' }));
      const show = async () => {
        try {
          result.replaceChildren(...[await ask(input.value.trim())].flat(Infinity));
        } catch (failure) {
          result.replaceChildren(el('p', { class: 'error-text', role: 'alert', text: failure.message }));
        }
      };
      form.addEventListener('submit', (event) => { event.preventDefault(); show(); });
      if (text) show();
      return [form, result];
    };
    const from = el('select', { 'aria-label': 'Side' }, ['outside', 'inside'].map((side) => el('option', { value: side, text: `from ${side}` })));
    if (context.query.get('from') === 'inside') from.value = 'inside';
    const packet = part('Packet', context.query.get('packet') ?? '', 'tcp 198.51.100.7:4000 > 203.0.113.5:22 syn', from, async (text) => explained(
      await context.api.post('explain', { packet: text, from: from.value })));
    const source = part('Source', context.query.get('source') ?? '', '198.51.100.7', [], async (text) => plainTable('The source', [['Name'], ['Value']], rowsOf(
      await context.api.get(['sources', text], { signal: context.signal }))));
    root.append(el('h1', { class: 'visually-hidden', text: 'Explain' }), ...packet, ...source);
  },
};
