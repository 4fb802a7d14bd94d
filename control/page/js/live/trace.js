// A trace of live packets, in a dialog.

import { every } from '../api.js';
import { el, number, patch, setText } from '../dom.js';
import { whileOpen } from '../while-open.js';

/** Packets that are shown: the newest ones. */
const MOST = 200;
/** Time of a trace, and packets in a second. */
const TIME = '10m';
const RATE = 100;

const knockOf = ({ door, outcome }) => {
  if (typeof outcome === 'string') return `door ${door}: ${outcome}`;
  return outcome.step === undefined ? `door ${door}: failed, ${outcome.failed}` : `door ${door}: step ${outcome.step}`;
};

/** The rules of a packet: those that matched. `rules` are those of its generation, or null. */
function rulesOf(packet, rules) {
  const { facts } = packet;
  if (!facts) return ['rules do not see it'];
  const places = [...facts.matched, ...(facts.last === null || facts.last === undefined ? [] : [facts.last])];
  if (places.length === 0) return ['no rule matched'];
  if (!rules) return [`${places.length} rules matched, which were replaced meanwhile`];
  return places.map((place, at) => {
    const rule = rules[place];
    if (!rule) return `rule ${place}`;
    const gap = at === facts.matched.length ? '… ' : at > 0 ? ', ' : '';
    return [gap, el('a', { href: `#/rules?rule=${encodeURIComponent(rule.id)}`, title: rule.comment || null, text: `${rule.number} ${rule.action}` })];
  });
}

const clock = new Intl.DateTimeFormat('sv', { timeStyle: 'medium' });
/** A time of the day with milliseconds, of nanoseconds since 1970. */
const timeOf = (at) => `${clock.format(new Date(at / 1e6))}.${String(Math.floor(at / 1e6) % 1000).padStart(3, '0')}`;

function row(packet, rules) {
  const text = packet.text?.replace(/, \d+ bytes$/, '') ?? 'a frame that rules do not see';
  const canExplain = text.startsWith('tcp ') || text.startsWith('udp ');
  const link = canExplain ? el('a', { href: `#/explain?packet=${encodeURIComponent(text)}&from=${packet.side}`, text: 'Why', title: 'Explain a packet like this with the present state' }) : '';
  const knocks = packet.facts?.knocks.map(knockOf) ?? [];
  return el('tr', {},
    el('td', { class: 'mono', text: timeOf(packet.at) }),
    el('td', {}, el('code', { text }), ` from ${packet.side}`),
    el('td', { class: packet.verdict === 'drop' ? 'bad' : 'good', text: `${packet.verdict}: ${packet.reason}` }),
    el('td', {}, rulesOf(packet, rules), knocks.length > 0 ? el('div', { class: 'soft', text: knocks.join('; ') }) : null),
    el('td', {}, link));
}

/** Shows the packets that fit a filter in the words of `knockctl trace`, until the dialog is closed. */
export function showTrace(context, filter) {
  const state = el('p', { class: 'soft', role: 'status', text: 'The trace begins …' });
  const body = el('tbody');
  const head = el('tr', {}, ['Time', 'Packet', 'Verdict', 'Rules that matched', ''].map((title) => el('th', { scope: 'col', text: title })));
  const content = el('div', { class: 'wide-content' }, state,
    el('div', { class: 'scroll trace', role: 'region', 'aria-label': 'Packets', tabindex: '0' }, el('table', { class: 'plain-table' }, el('thead', {}, head), body)));
  return whileOpen(context, { title: `Trace: ${filter}`, content }, (signal) => run(context, filter, signal, state, body));
}

async function run(context, filter, signal, state, body) {
  const { api } = context;
  const fail = (failure) => {
    if (!signal.aborted) patch(state, el('span', { class: 'error-text', role: 'alert', text: failure.message }));
  };
  let trace;
  try {
    ({ trace } = await api.post('trace', { filter, time: TIME, rate: RATE }));
  } catch (failure) {
    fail(failure);
    return;
  }
  // A trace that is not read ends by itself: this is only sooner.
  const end = () => api.delete(['trace', trace]).catch(() => {});
  if (signal.aborted) {
    end();
    return;
  }
  const reading = new AbortController();
  signal.addEventListener('abort', () => { reading.abort(); end(); });
  let running = { generation: -1, rules: [] };
  let total = 0;
  every(1, async () => {
    let answer;
    try {
      answer = await api.post(['trace', trace, 'read']);
      if (answer.packets.some((packet) => packet.facts && packet.generation > running.generation)) running = await api.get('rules');
    } catch (failure) {
      reading.abort();
      fail(failure);
      return;
    }
    if (signal.aborted) return;
    total += answer.packets.length;
    const rows = answer.packets.slice(-MOST).map((packet) => row(packet, packet.generation === running.generation ? running.rules : null));
    body.prepend(...rows.reverse());
    while (body.childElementCount > MOST) body.lastChild.remove();
    const missed = answer.missed > 0 ? `, ${number(answer.missed)} more were over ${RATE} a second` : '';
    setText(state, `${number(total)} packets${missed}. ${answer.is_over ? 'The time of the trace is over.' : 'Traced flows are decided by workers, not by the kernel.'}`);
    if (answer.is_over) reading.abort();
  }, reading.signal);
}
