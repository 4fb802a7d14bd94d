// The state of one source.

import { el, plainTable } from '../dom.js';

/** The members of an answer as rows of names and values. */
function rowsOf(value, path = '') {
  if (value === null || typeof value !== 'object') return [[path, String(value)]];
  return Object.entries(value).flatMap(([name, inner]) => rowsOf(inner, path ? `${path}.${name}` : name));
}

export default {
  title: 'Explain',
  enter(root, context) {
    const input = el('input', { name: 'address', required: true, spellcheck: 'false', autocomplete: 'off', placeholder: '192.0.2.1', value: context.query.get('source') ?? '' });
    const result = el('div', { 'aria-live': 'polite' });
    const form = el('form', { class: 'toolbar' }, el('label', {}, 'Source ', input), el('button', { type: 'submit', text: 'Show' }));
    const show = async () => {
      try {
        const answer = await context.api.get(['sources', input.value.trim()], { signal: context.signal });
        result.replaceChildren(plainTable('The source', [['name'], ['value']], rowsOf(answer)));
      } catch (failure) {
        result.replaceChildren(el('p', { class: 'error-text', role: 'alert', text: failure.message }));
      }
    };
    form.addEventListener('submit', (event) => { event.preventDefault(); show(); });
    root.append(el('h1', { class: 'visually-hidden', text: 'Explain' }), form, el('div', { class: 'view' }, result));
    if (input.value) show();
  },
};
