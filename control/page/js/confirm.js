// The bar about a change that waits for its confirmation. It appears for changes of all clients, because it follows the status.

import { api } from './api.js';
import { ask, duration, el, setText, toast } from './dom.js';

/**
 * Makes the bar. `refresh()` reads the status at once. `bar.show(confirmation)` takes the field `confirmation` of the status, or null.
 * A view that applied a change calls `context.refreshStatus()`, and the bar appears.
 */
export function confirmBar({ can, refresh }) {
  const text = el('span');
  const confirm = el('button', { type: 'button', class: 'primary', text: 'Confirm' });
  const undo = el('button', { type: 'button', text: 'Undo now' });
  const element = el('div', { class: 'notice warning', role: 'region', 'aria-label': 'Unconfirmed change', hidden: true }, text, confirm, undo);
  let pending = null;
  let ends = 0;

  const draw = () => {
    if (!pending) return;
    const left = Math.max(0, (ends - Date.now()) / 1000);
    const done = pending.change === 'reload' ? 'Reloaded' : 'Applied';
    setText(text, left > 0
      ? `${done}, not confirmed: confirm within ${duration(left < 1 ? 1 : left)}, or ${pending.back_to_source || 'the rules before'} (${pending.back_to_rules} rules) returns.`
      : 'The time to confirm is over. The rules before return.');
  };
  setInterval(draw, 250);

  const run = async (action) => {
    confirm.disabled = true;
    undo.disabled = true;
    try {
      await action();
    } catch (failure) {
      toast(failure);
    } finally {
      confirm.disabled = false;
      undo.disabled = false;
      refresh();
    }
  };
  confirm.addEventListener('click', () => run(async () => {
    await api.post('confirm');
    toast('Confirmed. The change remains.');
  }));
  undo.addEventListener('click', () => run(async () => {
    if (!await ask('Undo the change?', 'The rules of the revision before run at once.', 'Undo now')) return;
    await undoLast();
    toast('Undone. The rules of the revision before run.');
  }));

  return {
    element,
    show(confirmation) {
      pending = confirmation;
      element.hidden = !confirmation;
      if (!confirmation) return;
      ends = Date.now() + confirmation.time_left_seconds * 1000;
      confirm.hidden = !can('operate');
      // A reload also changes doors, which are in no revision: it returns by itself.
      undo.hidden = !can('administer') || confirmation.change === 'reload';
      draw();
    },
  };
}

/**
 * Applies the rules of the revision before the last one. The dataplane refuses an apply while another one waits, so that one is
 * confirmed first, as late as possible.
 */
async function undoLast() {
  const { revisions } = await api.get('history');
  const last = revisions.at(-1);
  const before = revisions.slice(0, -1).findLast((revision) => revision.has_rules);
  if (!before) throw new Error('The history has no revision before this change: wait until the time is over.');
  const { export: text } = await api.get(['history', String(before.revision)]);
  if (text === null) throw new Error('The rules before have no text form: wait until the time is over, or run `knockctl undo` on the host.');
  await api.post('confirm');
  await api.post('apply', { source: before.source, text, origin: 'undo', back_to: before.revision, based_on: last.revision });
}
