// The frame of the page: sign-in, navigation, notices. It shows one view at a time.

import { api, connection, every, session, signIn, signOut } from './api.js';
import { confirmBar } from './confirm.js';
import { el, setText, time, toast } from './dom.js';
import { takeLink } from './link.js';
import doors from './views/doors.js';
import explain from './views/explain.js';
import importing from './views/import.js';
import lists from './views/lists.js';
import live from './views/live.js';
import rules from './views/rules.js';
import status from './views/status.js';

const VIEWS = { rules, lists, doors, live, explain, import: importing, status };
const FIRST = 'rules';
const ROLES = ['read', 'operate', 'administer'];
/** Seconds between two reads of the status, which the notices need. */
const STATUS_EVERY = 2;

/** The session; null if signed out. */
let signedIn = null;
/** Ends the timers and streams of the frame, and of the shown view. */
let frameEnd = null;
let shown = null;

const can = (role) => signedIn !== null && ROLES.indexOf(signedIn.role) >= ROLES.indexOf(role);

// ---- Colours

function applyTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
}

function themeButton() {
  const button = el('button', { type: 'button', class: 'plain' });
  const draw = () => {
    const theme = localStorage.getItem('theme');
    button.textContent = theme === 'dark' ? '☾' : theme === 'light' ? '☀' : '◐';
    const name = theme === 'dark' ? 'dark' : theme === 'light' ? 'light' : 'as the system';
    button.title = `Colours: ${name}`;
    button.setAttribute('aria-label', `Colours: ${name}. Change`);
  };
  button.addEventListener('click', () => {
    const next = { dark: null, light: 'dark' }[localStorage.getItem('theme')] ?? (localStorage.getItem('theme') === 'dark' ? null : 'light');
    if (next) localStorage.setItem('theme', next);
    else localStorage.removeItem('theme');
    applyTheme(next);
    draw();
  });
  draw();
  return button;
}

// ---- Sign-in

function showSignIn(message = '') {
  endFrame();
  signedIn = null;
  document.title = 'Sign in – knockplane';
  const error = el('p', { class: 'error-text', role: 'alert', id: 'sign-in-error', hidden: message === '', text: message });
  const input = el('input', {
    type: 'password', name: 'token', autocomplete: 'current-password', required: true, spellcheck: 'false', 'aria-describedby': 'sign-in-error',
  });
  const button = el('button', { class: 'primary', type: 'submit', text: 'Sign in' });
  const form = el('form', {}, el('label', { class: 'field' }, 'Token', input), error, button);
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    button.disabled = true;
    try {
      const found = await signIn({ token: input.value.trim() });
      input.value = '';
      showFrame(found);
    } catch (failure) {
      error.textContent = failure.message;
      error.hidden = false;
      input.select();
    } finally {
      button.disabled = false;
    }
  });
  document.body.replaceChildren(el('main', { class: 'sign-in' }, el('h1', { text: 'knockplane' }), form,
    el('p', { class: 'soft' }, 'On the host, ', el('code', { text: 'knockctl page' }), ' prints a link that signs in, and ',
      el('code', { text: 'knockctl token new NAME --role administer --expires 90d' }), ' makes a token.')));
  input.focus();
}

/** Whether something is entered that is not applied: a form is open, or a text. */
const hasInput = () => document.querySelector('dialog[open] :is(input, textarea, select)') !== null
  || [...document.querySelectorAll('main textarea')].some((one) => one.value !== '');

connection.addEventListener('signed-out', ({ detail }) => {
  if (signedIn) showSignIn(hasInput() ? `${detail.message}. What was entered and not applied is lost.` : detail.message);
});

// ---- The frame

function endFrame() {
  leaveView();
  frameEnd?.abort();
  frameEnd = null;
}

function showFrame(found) {
  endFrame();
  signedIn = found;
  frameEnd = new AbortController();
  const { signal } = frameEnd;
  const main = el('main', { tabindex: '-1' });
  const lost = el('div', { class: 'notice error', role: 'alert', hidden: true });
  const problem = el('div', { class: 'notice warning', role: 'status', hidden: true });
  const watchers = new Set();
  let last = null;

  const refreshStatus = async () => {
    last = await api.get('status', { signal });
    bar.show(last.confirmation);
    const worst = last.problems.find(({ severity }) => severity === 'outage') ?? last.problems.find(({ severity }) => severity === 'warning');
    problem.hidden = !worst;
    if (worst) {
      const more = last.problems.length > 1 ? ` (and ${last.problems.length - 1} more)` : '';
      problem.className = `notice ${worst.severity === 'outage' ? 'error' : 'warning'}`;
      const text = worst.problem + more;
      if (problem.firstChild?.textContent !== text) problem.replaceChildren(el('span', { text }), el('a', { href: '#/status', text: 'What to do' }));
    }
    for (const watcher of watchers) watcher(last);
    return last;
  };
  const bar = confirmBar({ can, refresh: () => refreshStatus().catch(() => {}) });

  const links = Object.entries(VIEWS).map(([name, view]) => el('a', { href: `#/${name}`, text: view.title }));
  const leave = el('button', { type: 'button', text: 'Sign out' });
  leave.addEventListener('click', async () => {
    try {
      await signOut();
      showSignIn();
    } catch (failure) {
      toast(failure);
    }
  });
  const account = el('span', { title: `Role ${found.role}. The session ends at ${time(found.expires)}, or after ${found.idle_seconds / 60} minutes without use.` },
    el('span', { text: found.name }), ' ', el('span', { class: 'soft', text: found.role }));
  document.body.replaceChildren(
    el('header', { class: 'top' }, el('h1', { class: 'name', text: 'knockplane' }), el('nav', { 'aria-label': 'Views' }, links),
      el('div', { class: 'account' }, account, themeButton(), leave)),
    lost, bar.element, problem, main);

  connection.addEventListener('lost', ({ detail }) => { setText(lost, detail.message); lost.hidden = false; }, { signal });
  connection.addEventListener('restored', () => { lost.hidden = true; }, { signal });
  every(STATUS_EVERY, refreshStatus, signal);

  const route = () => {
    const [path, query] = location.hash.replace(/^#\/?/, '').split('?');
    const [name, ...rest] = path.split('/').map(decode);
    if (!(name in VIEWS)) {
      location.replace(`#/${FIRST}`);
      return;
    }
    leaveView();
    const view = VIEWS[name];
    links.forEach((link) => (link.hash === `#/${name}` ? link.setAttribute('aria-current', 'page') : link.removeAttribute('aria-current')));
    document.title = `${view.title} – knockplane`;
    const end = new AbortController();
    shown = { view, end };
    const root = el('div', { class: 'fill' });
    main.replaceChildren(root);
    main.scrollTop = 0;
    view.enter(root, {
      session: signedIn,
      can,
      api,
      path: rest,
      query: new URLSearchParams(query ?? ''),
      signal: end.signal,
      every: (seconds, run) => every(seconds, run, end.signal),
      status: (watcher) => {
        watchers.add(watcher);
        end.signal.addEventListener('abort', () => watchers.delete(watcher));
        if (last) watcher(last);
      },
      refreshStatus: () => refreshStatus().catch(() => {}),
    });
  };
  addEventListener('hashchange', () => { route(); main.focus(); }, { signal });
  route();
}

const decode = (text) => {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
};

function leaveView() {
  if (!shown) return;
  shown.end.abort();
  shown.view.leave?.();
  shown = null;
}

/** Shows the session, or the sign-in. A link begins a session first; if it does not, an earlier session goes on. */
async function start(link) {
  endFrame();
  signedIn = null;
  let refused = null;
  try {
    let found = null;
    if (link !== null) found = await signIn({ link }).catch((failure) => { refused = failure; });
    if (refused?.code === 'unreachable') throw refused;
    found ??= await session();
    if (!found) return showSignIn(refused?.message);
    showFrame(found);
    if (refused) toast(refused);
  } catch (failure) {
    document.body.replaceChildren(el('p', { class: 'page-message', role: 'alert', text: failure.message }));
    setTimeout(() => start(link), 2000);
  }
}

applyTheme(localStorage.getItem('theme'));
// A link that is opened in the window of the page changes the fragment alone.
addEventListener('hashchange', () => {
  const link = takeLink();
  if (link !== null) start(link);
});
start(takeLink());
