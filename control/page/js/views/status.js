// Is all well? If not, what to do.

import { bytes, duration, el, number, pairs, patch, plainTable, time } from '../dom.js';

const RIGHT = 'number';

function verdict(status) {
  const outages = status.problems.filter(({ severity }) => severity === 'outage').length;
  if (!status.ready) return ['bad', 'Packets are not decided.'];
  if (outages > 0) return ['bad', `Not all packets pass as they should: ${outages} ${outages === 1 ? 'problem' : 'problems'}.`];
  if (status.problems.length > 0) return ['warn', `The filter works, with ${status.problems.length} ${status.problems.length === 1 ? 'remark' : 'remarks'}.`];
  return ['good', 'All is well.'];
}

function interfaces(status) {
  return plainTable('Interfaces',
    [['side'], ['interface'], ['link'], ['mode'], ['queues', RIGHT], ['MTU', RIGHT], ['received', RIGHT], ['sent', RIGHT], ['errors', RIGHT]],
    status.interfaces.map((one) => [
      one.side, one.name, el('span', { class: one.up ? 'good' : 'bad', text: one.up ? 'up' : 'down' }),
      `${one.xdp_mode}${one.zero_copy ? ', zero copy' : ', copy'}`, number(one.queues), number(one.mtu),
      number(one.counters.rx_packets), number(one.counters.tx_packets), number(one.counters.rx_errors + one.counters.tx_errors),
    ]));
}

function workers(status) {
  return plainTable('Workers',
    [['worker', RIGHT], ['core', RIGHT], ['heartbeat', RIGHT], ['received', RIGHT], ['sent', RIGHT], ['dropped', RIGHT], ['busy', RIGHT]],
    status.workers.map((one) => [
      String(one.worker), one.core === null ? '–' : String(one.core), duration(one.heartbeat_age_seconds),
      number(one.received.outside + one.received.inside), number(one.sent.outside + one.sent.inside), number(one.dropped),
      `${(100 * one.busy_seconds / Math.max(status.uptime_seconds, 1)).toFixed(1)} %`,
    ]));
}

function draw(root, status) {
  const [css, text] = verdict(status);
  const started = new Date(Date.now() - status.uptime_seconds * 1000).toISOString();
  patch(root,
    el('p', { class: `verdict ${css}`, text }),
    status.ready ? null : el('p', { class: 'bad', text: status.not_ready_because }),
    status.problems.map(({ severity, problem, remedy }) => el('div', { class: `problem ${severity}` }, el('strong', { text: problem }), el('div', { text: remedy }))),
    el('div', { class: 'columns' },
      el('section', {}, el('h2', { text: 'Rules' }), pairs([
        ['Rules', number(status.rules)],
        ['Source', status.rules_source],
        ['Generation', `${status.generation}, for ${duration(status.generation_age_seconds)}`],
        ['No rule decides', Object.entries(status.settings.chain_default).map(([chain, decided]) => `${chain}: ${decided}`).join(', ')],
        ['Protected', status.settings.protect.join(', ') || 'all addresses'],
      ])),
      el('section', {}, el('h2', { text: 'Processes' }), pairs([
        ['Dataplane', `${status.dataplane_version}, process ${status.pid}`],
        ['Started', `${time(started)} (${duration(status.uptime_seconds)} ago)`],
        ['Fast path', status.fast_path.on ? `on${status.fast_path.reason ? `: ${status.fast_path.reason}` : ''}` : `off: ${status.fast_path.reason ?? 'the configuration turns it off'}`],
        ['Connections', status.connections === null ? 'not tracked' : `${number(status.connections.known)} of ${number(status.connections.capacity)}`],
        ['Memory', bytes(status.memory.reduce((sum, table) => sum + table.bytes, 0))],
        ['Event streams', number(status.control.event_streams)],
      ]))),
    el('h2', { text: 'Interfaces' }), interfaces(status),
    el('h2', { text: 'Workers' }), workers(status),
    el('h2', { text: 'Dropped frames' }),
    status.drops.length === 0 ? el('p', { class: 'soft', text: 'None since the dataplane started.' })
      : plainTable('Dropped frames', [['reason'], ['frames', RIGHT]], status.drops.map(({ reason, frames }) => [reason, number(frames)])));
}

export default {
  title: 'Status',
  enter(root, context) {
    const view = el('div', { class: 'view' });
    root.append(view);
    context.status((status) => draw(view, status));
  },
};
