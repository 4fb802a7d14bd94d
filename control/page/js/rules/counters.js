// Counters of rules and their rates, in place: the whole rules are large, and their counters small.

import { pathOf } from '../api.js';

/** The path of the counters of the rules of this answer. */
export const countersOf = ({ order }) => pathOf(['rules', 'counters'], { order });

/** Writes the counters of an answer into its rules, and the rates since the answer before, which may be null or of other rules. */
export function count(rules, before, now) {
  // The time of the dataplane between the two: a slow connection changes no rate.
  const time = before?.order === now.order ? now.uptime_seconds - before.uptime_seconds : 0;
  rules.forEach((rule, at) => {
    rule.counter.packets = now.packets[at];
    rule.counter.bytes = now.bytes[at];
    if (time <= 0) return;
    const packets = (now.packets[at] - before.packets[at]) / time;
    const bytes = (now.bytes[at] - before.bytes[at]) / time;
    // A counter that was set to zero begins again.
    rule.rate = packets >= 0 && bytes >= 0 ? { packets, bytes } : null;
  });
}

/** Gives rules the last rates of the rules before them, until they have rates of their own. */
export function keepRates(rules, before) {
  const rates = new Map(before.map((rule) => [rule.id, rule.rate]));
  for (const rule of rules) rule.rate = rates.get(rule.id) ?? null;
}
