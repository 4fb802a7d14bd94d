// The stream of events (/api/v1/events). After a loss it continues behind the last event that it has got.

import { connection, pathOf, session } from './api.js';

/** Pauses before attempts to connect again: the first and the longest. */
const FIRST_MS = 500;
const LONGEST_MS = 15_000;

/**
 * Follows events until `signal` is aborted. `query` has the parameters of /api/v1/events: `{kind, list, door, source, rule, since}`.
 * `onEvent(event)` gets each event, including those of the kinds `gap` (events that are missing: read the present state again) and
 * `start` (the dataplane has started). `onState('connected' | 'lost')` tells the state of the stream.
 */
export function follow(query, { onEvent, onState = () => {}, signal }) {
  let last = query.since ?? null;
  let source = null;
  let timer = 0;
  let pause = FIRST_MS;

  const open = () => {
    clearTimeout(timer);
    if (signal.aborted) return;
    source?.close();
    source = new EventSource(pathOf('events', { ...query, since: last }));
    source.addEventListener('open', () => { pause = FIRST_MS; onState('connected'); });
    source.addEventListener('message', ({ data, lastEventId }) => {
      if (lastEventId) last = lastEventId;
      let event;
      try {
        event = JSON.parse(data);
      } catch {
        return;
      }
      onEvent(event);
    });
    source.addEventListener('error', () => {
      // The browser would connect again by itself, but not after each kind of failure, and without a longer pause.
      source.close();
      if (signal.aborted) return;
      onState('lost');
      // Tells the page about the loss, or about the end of the session.
      session().catch(() => {});
      timer = setTimeout(open, pause * (0.75 + Math.random() / 2));
      pause = Math.min(pause * 2, LONGEST_MS);
    });
  };
  connection.addEventListener('restored', () => { if (source?.readyState === EventSource.CLOSED) { pause = FIRST_MS; open(); } }, { signal });
  signal.addEventListener('abort', () => { clearTimeout(timer); source?.close(); });
  open();
}
