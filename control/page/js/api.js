// Requests to /api/v1: JSON, the CSRF header, failures as errors, and the state of the connection.

const BASE = '/api/v1';
/** A user without input for this time is not there: requests of timers do not prolong the session then. */
const AWAY_MS = 60_000;
/** Time limit of a request. */
const WITHIN_MS = 30_000;

let csrf = '';
let lastInput = Date.now();
for (const event of ['pointerdown', 'pointermove', 'keydown', 'wheel', 'touchstart']) {
  addEventListener(event, () => { lastInput = Date.now(); }, { passive: true, capture: true });
}

/** A failed request. `message` has the whole text; `code` is that of docs/api.md, or `unreachable`. */
export class Failure extends Error {
  constructor({ status = 0, code, message, remedy = null, problems = [] }) {
    super(message);
    Object.assign(this, { name: 'Failure', status, code, remedy, problems });
  }
}

/** Events: `signed-out` (detail: the failure), `lost` (detail: the failure), `restored`. */
export const connection = new EventTarget();
/** What the connection was lost to: '' if it is not lost, 'control' or 'dataplane'. */
let lost = '';
const tell = (name, detail) => connection.dispatchEvent(new CustomEvent(name, { detail }));

/** Requests that control answers without the dataplane. */
const WITHOUT_DATAPLANE = ['/traffic', '/session'];

/** Notes the end of a request to a path. A failure with another status is an answer, as a success is. */
function noteReachable(path, failure = null) {
  const before = lost;
  if (failure?.code === 'unreachable') lost = 'control';
  else if ([502, 503, 504].includes(failure?.status)) lost = 'dataplane';
  else if (lost === 'control' || !WITHOUT_DATAPLANE.some((one) => path.startsWith(BASE + one))) lost = '';
  else return;
  if (lost) tell('lost', failure);
  else if (before) tell('restored');
}

/** The path of a request: segments are escaped, and parameters that are null or '' are omitted. `path`: ['lists', name] */
export function pathOf(segments, query = {}) {
  const text = [].concat(segments).map(encodeURIComponent).join('/');
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== null && value !== undefined && value !== '') parameters.set(name, value);
  }
  const tail = parameters.toString();
  return `${BASE}/${text}${tail ? `?${tail}` : ''}`;
}

async function send(method, path, { body, background = false, signal } = {}) {
  const headers = { accept: 'application/json' };
  if (method !== 'GET') headers['x-knockplane-csrf'] = csrf;
  if (body !== undefined) headers['content-type'] = 'application/json';
  if (background || Date.now() - lastInput > AWAY_MS) headers['x-knockplane-background'] = '1';
  const limit = AbortSignal.timeout(WITHIN_MS);
  let answer;
  let text;
  try {
    answer = await fetch(path, {
      method, headers, credentials: 'same-origin', cache: 'no-store', redirect: 'error',
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: signal ? AbortSignal.any([signal, limit]) : limit,
    });
    text = await answer.text();
  } catch (error) {
    if (signal?.aborted) throw error;
    const failure = new Failure({ code: 'unreachable', message: 'The control process does not answer. The page tries again by itself.' });
    noteReachable(path, failure);
    throw failure;
  }
  let content = null;
  try {
    content = text === '' ? null : JSON.parse(text);
  } catch {
    content = null;
  }
  if (answer.ok) {
    noteReachable(path);
    return content;
  }
  const failure = new Failure({
    status: answer.status,
    code: content?.code ?? 'failed',
    message: content?.message ?? `the request failed with the status ${answer.status}`,
    remedy: content?.remedy,
    problems: content?.problems,
  });
  noteReachable(path, failure);
  if (answer.status === 401) tell('signed-out', failure);
  throw failure;
}

/** Requests. `path` is a text below /api/v1, such as 'status', an array of segments, or the result of `pathOf`. */
export const api = {
  get: (path, options) => send('GET', full(path), options),
  post: (path, body = {}, options) => send('POST', full(path), { ...options, body }),
  delete: (path, options) => send('DELETE', full(path), options),
};

const full = (path) => (typeof path === 'string' && path.startsWith(BASE) ? path : pathOf(typeof path === 'string' ? path.split('/') : path));

/** The session: `{name, role, csrf, expires, idle_seconds}`; null without one, which ends the shown one. */
export async function session() {
  const found = await send('GET', `${BASE}/session`, { background: true });
  if (found) return keep(found);
  tell('signed-out', new Failure({ status: 401, code: 'unauthenticated', message: 'The session has ended: sign in again.' }));
  return null;
}

export async function signIn(credentials) {
  return keep(await send('POST', `${BASE}/session`, { body: credentials }));
}

export async function signOut() {
  await send('DELETE', `${BASE}/session`);
  csrf = '';
}

function keep(found) {
  csrf = found.csrf;
  return found;
}

/**
 * Runs an async function now, and again after each interval in seconds, until `signal` is aborted. Not while the page is hidden. A
 * failure does not end it: the notice of the page shows a lost connection, and other failures are the function's to catch.
 */
export function every(seconds, run, signal) {
  let timer = 0;
  let running = false;
  const turn = async () => {
    clearTimeout(timer);
    if (running || signal.aborted) return;
    running = true;
    try {
      if (!document.hidden) await run();
    } catch (error) {
      if (!(error instanceof Failure) && error?.name !== 'AbortError') console.error(error);
    }
    running = false;
    if (!signal.aborted) timer = setTimeout(turn, seconds * 1000);
  };
  const wake = () => { if (!document.hidden) turn(); };
  document.addEventListener('visibilitychange', wake, { signal });
  connection.addEventListener('restored', wake, { signal });
  signal.addEventListener('abort', () => clearTimeout(timer));
  turn();
}
