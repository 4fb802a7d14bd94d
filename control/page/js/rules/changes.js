// Changes of rules: each one is shown with its plan first, and applied with a time to confirm it.

import { dialog, el, time as timeOf, toast } from '../dom.js';
import { propertyForm } from './form.js';
import { MENUS, ofRule, setCommand, written } from './words.js';

/** The name in the API of a rule's menu. */
export const menuOf = (rule) => MENUS.find(({ path }) => path === rule.menu)?.name ?? 'ip-filter';

const TIMES = [['60s', 'within 1 minute'], ['15s', 'within 15 seconds'], ['5m', 'within 5 minutes'], ['30m', 'within 30 minutes'], ['', 'not required']];

const count = (many, what) => `${many} ${what}${many === 1 ? '' : 's'}`;

/** What a plan changes, as nodes. */
function planNodes({ plan, loss }) {
  const { added, removed, moved, changed } = plan.rules;
  const packets = plan.known?.changed ?? [];
  const nodes = [el('p', {}, [
    count(added.length, 'rule'), ' added, ', String(removed.length), ' removed, ', String(moved.length), ' moved, ', String(changed.length), ' changed. ',
    plan.known ? `Of ${count(plan.known.packets, 'packet')} of known connections and sources, ${packets.length} would get another verdict.` : '',
  ].join(''))];
  if (packets.length > 0) {
    nodes.push(el('ul', {}, packets.slice(0, 10).map(({ packet, old, new: now }) => el('li', { text: `${packet}: ${old.verdict} → ${now.verdict}` }))));
    if (packets.length > 10) nodes.push(el('p', { class: 'soft', text: `and ${packets.length - 10} more` }));
  }
  for (const lint of plan.lints?.added ?? []) nodes.push(el('div', { class: 'problem', text: `New: ${lint.rule ?? ''} ${lint.message}${lint.remedy ? `: ${lint.remedy}` : ''}` }));
  if (plan.lints?.gone.length) nodes.push(el('p', { class: 'good', text: `${count(plan.lints.gone.length, 'warning')} would be gone.` }));
  if (loss) nodes.push(el('div', { class: 'problem outage', text: loss }));
  return nodes;
}

/**
 * Shows a change and applies it. `about`: a sentence about it. `plan()` returns `{plan, loss}`; `apply({confirm_within, comment,
 * force})` applies it. Returns whether it was applied.
 */
export async function review(context, { title, about = '', commands = [], plan, apply }) {
  const planned = await plan();
  const time = el('select', {}, TIMES.map(([value, text]) => el('option', { value, text })));
  const comment = el('input', { maxlength: '400' });
  const force = el('input', { type: 'checkbox' });
  const applied = await dialog({
    title,
    content: el('div', {},
      about ? el('p', { text: about }) : null,
      commands.length > 0 ? el('pre', { class: 'commands', text: commands.join('\n') }) : null,
      planNodes(planned),
      el('label', { class: 'field' }, 'Confirmation', time),
      el('label', { class: 'field' }, 'Comment for the history', comment),
      planned.loss ? el('label', {}, force, 'Apply it nevertheless') : null),
    buttons: [{
      label: 'Apply',
      primary: true,
      action: async () => {
        await apply({ ...(time.value ? { confirm_within: time.value } : {}), ...(comment.value ? { comment: comment.value } : {}), ...(force.checked ? { force: true } : {}) });
        return true;
      },
    }],
  });
  if (applied !== true) return false;
  toast('Applied.');
  await context.refreshStatus();
  return true;
}

/** Plans an edit. A failure has all problems of the commands in its message. */
async function dryRun(context, request) {
  try {
    return await context.api.post(['rules', 'edit'], { ...request, dry_run: true });
  } catch (failure) {
    if (!failure.problems?.length) throw failure;
    throw new Error(failure.problems.map(({ message, remedy }) => [message, remedy].filter(Boolean).join(': ')).join('\n'), { cause: failure });
  }
}

/** Edits rules with commands of RouterOS, which refer to the revision `base`. `planned` is the plan, if it is known already. */
export function edit(context, { title, base, menu, commands, planned = null }) {
  const request = { base, menu, commands };
  return review(context, {
    title,
    commands,
    plan: () => planned ?? dryRun(context, request),
    apply: (options) => context.api.post(['rules', 'edit'], { ...request, ...options }),
  });
}

/**
 * Asks for the properties of a rule, and edits. `rule` is the one to change or to copy, or null; `rules` are all, for suggestions.
 * `commandOf` makes the command of a Map of names and values, or null. A problem is shown in the dialog, which stays open.
 */
async function ask(context, { title, base, menu, rule, rules, chain, commandOf }) {
  const form = propertyForm(rule ? ofRule(rule) : new Map([['chain', chain || 'input'], ['action', 'accept']]), rules);
  const found = await dialog({
    title,
    content: form.element,
    buttons: [{
      label: 'Continue',
      primary: true,
      action: async () => {
        const command = commandOf(form.words());
        if (!command) throw new Error('Nothing was changed.');
        return { commands: [command], planned: await dryRun(context, { base, menu, commands: [command] }) };
      },
    }],
  });
  return found ? edit(context, { title, base, menu, ...found }) : false;
}

/** Adds a rule before `before`, or at the end of the menu. `like` is the rule to copy. */
export function add(context, { base, menu, chain, before, rules, like = null }) {
  const place = before ? ` place-before=${before.id}` : '';
  return ask(context, { title: like ? 'Copy the rule' : 'Add a rule', base, menu, rule: like, rules, chain, commandOf: (words) => `add ${written(words)}${place}` });
}

/** Changes a rule. */
export function change(context, { base, rule, rules }) {
  const before = ofRule(rule);
  return ask(context, { title: `Rule ${rule.number}`, base, menu: menuOf(rule), rule, rules, commandOf: (words) => setCommand(rule.id, before, words) });
}

/** Returns to the rules before the last change. */
export async function undo(context) {
  const { revisions } = await context.api.get('history');
  const last = revisions.at(-1);
  const request = { base: last.revision };
  const planned = await context.api.post('undo', { ...request, dry_run: true });
  return review(context, {
    title: 'Undo the last change',
    about: `Revision ${last.revision} of ${timeOf(last.time)} runs. After the undo, ${planned.plan.new} run.`,
    plan: () => planned,
    apply: (options) => context.api.post('undo', { ...request, ...options }),
  });
}
