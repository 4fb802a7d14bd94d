// A RouterOS export: its problems, its plan, and the apply.

import { el, plainTable, toast } from '../dom.js';
import { review } from '../rules/changes.js';

/** The largest file: that of the API. */
const MOST = 16 << 20;

export default {
  title: 'Import',
  enter(root, context) {
    let name = 'rules.rsc';
    const file = el('input', { type: 'file', accept: '.rsc,text/plain', 'aria-label': 'File' });
    const text = el('textarea', { rows: '14', spellcheck: 'false', class: 'mono', 'aria-label': 'Rules', placeholder: 'Paste an export, or drop a file here.' });
    const result = el('div', { class: 'view', 'aria-live': 'polite' });
    const apply = el('button', { type: 'button', class: 'primary', text: 'Plan and apply', disabled: true });

    const go = (problem) => {
      const link = el('button', { type: 'button', class: 'plain', text: `${problem.line}:${problem.column ?? 1}` });
      link.addEventListener('click', () => {
        const lines = text.value.split('\n');
        const start = lines.slice(0, problem.line - 1).reduce((sum, line) => sum + line.length + 1, 0);
        text.focus();
        text.setSelectionRange(start + (problem.column ?? 1) - 1, start + (lines[problem.line - 1] ?? '').length);
      });
      return link;
    };
    const row = (kind) => (problem) => [problem.line ? go(problem) : '', kind, problem.code ?? '', [problem.message, problem.remedy].filter(Boolean).join(': ')];

    let turn = 0;
    async function check() {
      apply.disabled = true;
      if (text.value.trim() === '') { result.replaceChildren(); return; }
      turn += 1;
      const own = turn;
      const answer = await context.api.post('check', { text: text.value, source: name });
      if (own !== turn) return;
      const [found] = answer.files;
      const rows = [
        ...found.problems.map(row('error')), ...found.errors.map((message) => ['', 'error', '', message]), ...found.refused.map(row('refused')),
        ...found.invalid.map(row('invalid')), ...found.warnings.map(row('warning')), ...found.lints.map(row('lint')),
      ];
      result.replaceChildren(
        el('p', { class: found.valid ? 'good' : 'bad', text: found.valid ? `Valid: ${found.rules} rules, ${found.disabled} of them disabled.` : 'The rules have errors. Nothing is applied.' }),
        rows.length > 0 ? plainTable('Findings', [['Line'], ['Kind'], ['Code'], ['Finding']], rows) : el('p', { class: 'soft', text: 'No findings.' }));
      apply.disabled = !found.valid || !context.can('administer');
    }
    const checked = () => check().catch((failure) => result.replaceChildren(el('p', { class: 'error-text', role: 'alert', text: failure.message })));
    const take = async (chosen) => {
      if (!chosen) return;
      if (chosen.size > MOST) { toast(new Error(`${chosen.name} has more than 16 MiB.`)); return; }
      name = chosen.name;
      text.value = await chosen.text();
      checked();
    };
    // Empty again, so that the same file can be chosen after a change of it.
    file.addEventListener('change', () => { const [chosen] = file.files; take(chosen).finally(() => { file.value = ''; }); });
    root.addEventListener('dragover', (event) => event.preventDefault());
    root.addEventListener('drop', (event) => { if (event.dataTransfer.files.length > 0) { event.preventDefault(); take(event.dataTransfer.files[0]); } });
    text.addEventListener('change', checked);
    apply.addEventListener('click', async () => {
      try {
        const { revision } = await context.api.get('rules');
        await review(context, {
          title: `Apply ${name}`,
          plan: async () => {
            const plan = await context.api.post('plan', { text: text.value, source: name });
            return { plan, loss: plan.loss };
          },
          apply: (options) => context.api.post('apply', { source: name, text: text.value, based_on: revision, ...options }),
        });
      } catch (failure) {
        toast(failure);
      }
    });
    const button = el('button', { type: 'button', text: 'Check', on: { click: checked } });
    root.append(el('h1', { class: 'visually-hidden', text: 'Import' }), el('div', { class: 'toolbar' }, file, button, apply),
      el('div', { class: 'view' }, text), result);
  },
};
