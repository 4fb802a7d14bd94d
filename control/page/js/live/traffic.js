// The traffic of the last ten minutes: four plots with one axis of time.

import { every, pathOf } from '../api.js';
import { el, setText } from '../dom.js';
import { Plot } from './plot.js';

const WINDOW_SECONDS = 600;
/** Reasons with a line of their own; the others are summed. */
const MOST_REASONS = 4;

/** The lines of the reasons: the most frequent ones, in the order of the alphabet, so that they keep their places. */
function reasonsIn(samples) {
  const sums = new Map();
  for (const { rates } of samples) for (const [reason, frames] of Object.entries(rates?.dropped ?? {})) sums.set(reason, (sums.get(reason) ?? 0) + frames);
  const reasons = [...sums.keys()].sort((one, other) => sums.get(other) - sums.get(one));
  const lines = reasons.slice(0, MOST_REASONS).sort().map((reason) => [reason, ({ dropped }) => dropped[reason] ?? 0]);
  const others = reasons.slice(MOST_REASONS);
  if (others.length > 0) lines.push([`${others.length} others`, ({ dropped }) => others.reduce((sum, reason) => sum + (dropped[reason] ?? 0), 0)]);
  return lines.length > 0 ? lines : [['none', () => 0]];
}

/** The lines of the workers of the newest dataplane. */
function workersIn(samples) {
  const workers = samples.findLast(({ rates }) => rates)?.rates.workers ?? [];
  return workers.map((_, worker) => [`worker ${worker}`, (rates) => rates.workers[worker] ?? null]);
}

/** The plots. `lines(samples)`: `[[name, its value of rates], …]`. */
const PLOTS = [
  { title: 'Forwarded', lines: () => [['forwarded', ({ forwarded }) => forwarded]] },
  { title: 'Dropped, by reason', lines: reasonsIn },
  { title: 'Received, by worker', lines: workersIn },
  { title: 'Kernel and userspace', lines: () => [['kernel fast path', ({ kernel }) => kernel], ['userspace', ({ userspace }) => userspace]] },
];

/** The panel of the plots. It reads and draws until the view is left. */
export function trafficPanel(context) {
  const plots = PLOTS.map(({ title }) => new Plot({ title, window: WINDOW_SECONDS }));
  const choice = el('select', { 'aria-label': 'Plot', class: 'plot-choice' }, PLOTS.map(({ title }, at) => el('option', { value: at, text: title })));
  const problem = el('p', { class: 'error-text', role: 'alert', hidden: true });
  const panel = el('details', { class: 'traffic', open: localStorage.getItem('traffic') !== 'closed' },
    el('summary', { text: 'Traffic of the last ten minutes, frames a second' }), problem, choice,
    el('div', { class: 'plots' }, plots.map(({ element }) => element)));

  let uPlot = null;
  let samples = [];
  /** The control process that the samples are from, and the number of its last one. */
  let start = null;
  let last = 0;

  async function read() {
    uPlot ??= (await import('/vendor/uPlot.esm.js')).default;
    const since = (number) => context.api.get(pathOf('traffic', { since: number }), { signal: context.signal });
    let answer = await since(last);
    if (answer.start !== start && last > 0) answer = await since(0);
    ({ start, last } = answer);
    for (const sample of answer.samples) {
      // The clock was set back: the plot needs ascending times.
      while (samples.at(-1)?.time_seconds >= sample.time_seconds) samples.pop();
      samples.push(sample);
    }
    const end = samples.at(-1)?.time_seconds ?? 0;
    samples = samples.filter((sample) => sample.time_seconds > end - WINDOW_SECONDS);
    draw();
  }

  function draw() {
    if (!uPlot || !panel.open || samples.length === 0) return;
    const times = samples.map((sample) => sample.time_seconds);
    PLOTS.forEach(({ lines }, at) => {
      const valued = lines(samples).map(([name, value]) => [name, samples.map(({ rates }) => (rates ? value(rates) : null))]);
      plots[at].draw(uPlot, times, valued);
    });
  }

  every(1, async () => {
    if (!panel.open) return;
    problem.hidden = true;
    try {
      await read();
    } catch (failure) {
      // The page shows a lost connection.
      if (context.signal.aborted || failure.code === 'unreachable') return;
      setText(problem, failure.message);
      problem.hidden = false;
    }
  }, context.signal);

  const choose = () => {
    plots.forEach(({ element }, at) => element.classList.toggle('chosen', String(at) === choice.value));
    draw();
  };
  choice.addEventListener('change', choose);
  choose();
  panel.addEventListener('toggle', () => {
    localStorage.setItem('traffic', panel.open ? 'open' : 'closed');
    draw();
  });
  const sizes = new ResizeObserver(draw);
  sizes.observe(panel);
  const recolour = () => { for (const plot of plots) plot.recolour(); };
  const scheme = new MutationObserver(recolour);
  scheme.observe(document.documentElement, { attributeFilter: ['data-theme'] });
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', recolour, { signal: context.signal });
  context.signal.addEventListener('abort', () => {
    sizes.disconnect();
    scheme.disconnect();
    for (const plot of plots) plot.destroy();
  });
  return panel;
}
