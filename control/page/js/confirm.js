// The bar about a change that waits for its confirmation. It appears for changes of all clients, because it follows the status.

import { api } from './api.js';
import { ask, duration, el, setText, time as timeOf, toast } from './dom.js';

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
    if (await ask('Undo the change?', 'The rules and settings before the change run at once.', 'Undo now')) await api.post('cancel');
  }));

  // Whether the change was confirmed, undone or rolled back, is in the history alone.
  const tellEnd = async () => {
    const last = (await api.get('history')).revisions.at(-1);
    const isBack = last.origin === 'unconfirmed' || (last.origin === 'reload' && ['not confirmed in time', 'cancelled'].includes(last.comment));
    if (!isBack) return;
    const by = last.token ?? (last.uid === null ? null : `user ${last.uid}`);
    toast(by === null
      ? new Error(`Not confirmed in time: rolled back at ${timeOf(last.time)}. The rules before the change run again.`)
      : `Undone by ${by}. The rules before the change run again.`);
  };

  return {
    element,
    show(confirmation) {
      if (pending && !confirmation) tellEnd().catch(() => {});
      pending = confirmation;
      element.hidden = !confirmation;
      if (!confirmation) return;
      ends = Date.now() + confirmation.time_left_seconds * 1000;
      confirm.hidden = !can('operate');
      undo.hidden = !can('operate');
      draw();
    },
  };
}
