// The tabs of the rules view: the chains of each menu.

import { MENUS } from './words.js';

const BUILT_IN = ['prerouting', 'input', 'forward', 'output'];

/** The key of the tab with this rule. */
export const keyOf = (rule) => `${rule.menu} ${rule.chain}`;

/** A tab for each chain of each menu: built-in chains first, then the others in the order of their rules. */
export function tabsOf(rules) {
  const found = new Map();
  for (const rule of rules) {
    const key = keyOf(rule);
    if (!found.has(key)) found.set(key, { key, menu: rule.menu, chain: rule.chain, label: `${MENUS.find(({ path }) => path === rule.menu)?.words ?? ''}${rule.chain}` });
  }
  const place = ({ menu, chain }) => MENUS.findIndex(({ path }) => path === menu) * 10 + (BUILT_IN.includes(chain) ? BUILT_IN.indexOf(chain) : BUILT_IN.length);
  return [...found.values()].sort((one, other) => place(one) - place(other));
}
