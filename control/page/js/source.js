// What is known of a source: a dialog with the answer of /api/v1/sources/{address}.

import { every } from './api.js';
import { duration, el, number, pairs, patch, plainTable, toast } from './dom.js';
import { networkText, toText } from './entries.js';
import { whileOpen } from './while-open.js';

/** Seconds between two reads while the dialog is open. */
const EVERY = 2;

/** Why steps of a knock do not count (docs/doors.md). */
const FAILURES = {
  'started-over': 'another packet arrived between the steps',
  'timed-out': 'the step arrived too late',
  evicted: 'the lists were full',
  'held-off': 'the source opened the door recently (hold-off)',
  attempts: 'the source exceeded max-attempts',
  ports: 'the source exceeded the budget of ports',
  source: 'the source may not knock at this door',
};

/** A reason of a failed knock in words. */
export const failureText = (reason) => FAILURES[reason] ?? reason;

/** The one address whose state the API knows: of a /64 its first, of other prefixes and of ranges none. */
export function oneAddress(text) {
  const [address, length] = text.split('/');
  return text.includes('-') || (length !== undefined && !['32', '64', '128'].includes(length)) ? null : address;
}

const ago = (seconds) => `${duration(Math.floor(seconds))} ago`;
const left = (seconds) => (seconds === null ? 'without end' : `${duration(Math.ceil(seconds))} left`);
const packetOf = ({ protocol, port, side }) => `${[protocol ?? 'not IP', port].filter((part) => part !== null).join(' port ')}, from ${side}`;
const times = (count) => (count === 1 ? 'once' : `${number(count)} times`);
const ruleLink = (rule) => el('a', { href: `#/rules?rule=${encodeURIComponent(rule.id)}`, text: rule.comment ? `${rule.number} (${rule.comment})` : rule.number });

const dropText = (reason) => ({ rule: 'a rule', 'chain-default': 'the default of the chain' }[reason] ?? reason.replaceAll('-', ' '));

/** What the source may and does at a door, one sentence each. */
function doorTexts(door) {
  const texts = door.grants.map((grant) => ['good', `The door is open to ${toText(grant.to)}: ${left(grant.time_left_seconds)}.`]);
  if (door.progress) {
    const { steps, of, next, time_left_seconds: time } = door.progress;
    texts.push(['', `Has taken ${steps} of ${of} steps. The next step is ${next}: ${left(time)}.`]);
  }
  if (door.closing) texts.push(['', `Has taken ${door.closing.steps} of ${door.closing.of} steps of the closing knock.`]);
  if (!door.admitted) texts.push(['bad', 'Its knocks do not count, because the door’s sources do not contain it.']);
  for (const one of door.ignored) {
    if (one.reason !== 'source') texts.push(['bad', `Its knocks are ignored, because ${failureText(one.reason)}: ${left(one.time_left_seconds)}.`]);
  }
  if (door.attempts) texts.push(['soft', `It began ${times(door.attempts.used)} in ${duration(door.attempts.per_seconds)}: ${number(door.attempts.limit)} count.`]);
  for (const one of door.failures) {
    texts.push(['warn', `Failed ${times(one.times)}, because ${failureText(one.reason)}: last ${ago(one.last_ago_seconds)}, ${packetOf(one)}.`]);
  }
  return texts.length > 0 ? texts : [['soft', 'It has not knocked.']];
}

function drawn(answer) {
  const facts = [];
  if (answer.protected) facts.push(['Side', `${answer.protected} is protected: its packets are no knocks.`]);
  if (answer.network) facts.push(['Network', answer.network]);
  for (const one of answer.ports) {
    facts.push([`Ports tried ${networkText(one)}`.trim(), `${one.ignored ? `more than ${one.budget}: knocks at all doors are ignored, ` : `${one.tried} of ${one.budget}, `}${left(one.time_left_seconds)}`]);
  }
  if (answer.quota) facts.push([`First steps of ${answer.quota.prefix}`, `${number(answer.quota.used)} of ${number(answer.quota.limit)}`]);
  if (answer.connections) facts.push(['Connections', number(answer.connections.count)]);
  const since = answer.drops.complete_for_seconds;
  return [
    pairs(facts),
    answer.doors.map((door) => [
      el('h2', { text: `Door ${door.door} ${networkText(door)}`.trim() }),
      doorTexts(door).map(([css, text]) => el('p', { class: css || null, text })),
    ]),
    el('h2', { text: 'Lists' }),
    answer.lists.length === 0 ? el('p', { class: 'soft', text: 'No list contains the address.' })
      : plainTable('Lists that contain the address', [['List'], ['Entry'], ['Time left', 'number'], ['Origin'], ['Added by'], ['Comment']], answer.lists.map((one) => [
        el('a', { href: `#/lists/${encodeURIComponent(one.list)}`, text: one.list }),
        [one.name ? `${one.address} (${one.name})` : one.address, networkText(one)].filter(Boolean).join(' '),
        one.time_left_seconds === null ? '–' : duration(Math.ceil(one.time_left_seconds)),
        one.line === null ? one.origin : `${one.origin}, line ${one.line}`,
        one.door ? `door ${one.door}` : one.origin === 'packet' ? one.added_by.flatMap((rule, at) => [at > 0 ? ', ' : '', ruleLink(rule)]) : '',
        one.comment])),
    answer.lists_truncated ? el('p', { class: 'soft', text: 'There are more lists.' }) : [],
    el('h2', { text: 'Dropped packets' }),
    answer.drops.recent.length === 0 ? el('p', { class: 'soft', text: 'None is recorded.' })
      : plainTable('Dropped packets', [['Last'], ['Packets', 'number'], ['Reason'], ['Rule'], ['Last packet']], answer.drops.recent.map((one) => [
        ago(one.last_ago_seconds), number(one.packets), dropText(one.reason), one.rule ? ruleLink(one.rule) : one.rule_is_gone ? 'runs no more' : '–',
        [packetOf(one), networkText(one)].filter(Boolean).join(', ')])),
    since === null ? [] : el('p', { class: 'soft', text: `Complete for the last ${duration(since)}.` }),
  ];
}

/**
 * Shows the state of a source in a dialog, which follows it until it is closed or the view is left. `buttons` are those of `dialog`, whose
 * promise it returns. For more than one address it shows a message.
 */
export async function sourceDialog(context, source, buttons = []) {
  const address = oneAddress(source);
  if (address === null) {
    toast(`${source} is more than one address: the state of a source is that of one address.`);
    return undefined;
  }
  const content = el('div', {}, el('p', { class: 'soft', text: 'Reading…' }));
  return whileOpen(context, { title: `Source ${address}`, content, buttons }, (signal) => every(EVERY, async () => {
    try {
      patch(content, drawn(await context.api.get(['sources', address], { signal })));
    } catch (failure) {
      if (!signal.aborted) patch(content, el('p', { class: 'error-text', role: 'alert', text: failure.message }));
    }
  }, signal));
}
