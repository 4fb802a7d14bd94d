// A dialog whose content changes while it is open.

import { dialog } from './dom.js';

/**
 * Opens a dialog, and calls `run(signal)`: the signal is aborted when the dialog is closed or the view is left, which closes it. Takes
 * the options of `dialog`, and returns its promise.
 */
export async function whileOpen(context, options, run) {
  const end = new AbortController();
  const leave = () => options.content.closest('dialog')?.close();
  context.signal.addEventListener('abort', leave, { signal: end.signal });
  const closed = dialog({ cancel: 'Close', ...options });
  run(AbortSignal.any([context.signal, end.signal]));
  try {
    return await closed;
  } finally {
    end.abort();
  }
}
