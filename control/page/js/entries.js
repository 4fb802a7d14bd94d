// Entries of address lists, as lists and doors show them.

import { api } from './api.js';

/** The virtual network of an entry, as knockctl writes it; '' without one. */
export const networkText = ({ vlan, pppoe }) => [vlan && `vlan ${vlan}`, pppoe !== null && pppoe !== undefined && `pppoe ${pppoe}`].filter(Boolean).join(' ');

/** The destination that an entry counts for. */
export const toText = (to) => (to ? to.address ?? 'one IPv6 address' : 'all addresses');

/** The part of a key that tells destinations apart. */
export const toKey = (to) => to?.address ?? (to ? 'v6' : '');

/** The door of a list, and which of its three lists it is: `['ssh', 'knocking']`. Both are undefined for other lists. */
export function doorOf(list) {
  const [, door, part] = /^door-(.+?)(?:-(knocking|closing))?$/s.exec(list ?? '') ?? [];
  return [door, part];
}

/** Seconds that an entry has left now, of an answer that was read at this time of `performance.now()`; null without an end. */
export const secondsLeft = (entry, readAt) => (entry.time_left_seconds === null ? null : Math.max(0, entry.time_left_seconds - (performance.now() - readAt) / 1000));

/** Removes an entry. It may have ended by itself, which is no failure. */
export async function removeEntry(list, address) {
  try {
    await api.delete(['lists', list, address]);
  } catch (failure) {
    if (failure.code !== 'no-entry') throw failure;
  }
}
