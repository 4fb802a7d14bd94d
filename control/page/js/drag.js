// Rows that are dragged to another place: with the mouse, or with a finger that rests on a row first, so that fingers scroll as ever.
// Pointer events, because the drag events of HTML do not exist for touch in all browsers.

/** Pixels that a mouse moves before a drag begins. */
const THRESHOLD = 5;
/** Milliseconds that a finger rests. */
const LONG_PRESS_MS = 400;
/** Pixels from an edge within which the rows scroll, and pixels that they scroll every 50 ms. */
const EDGE = 24;
const STEP = 12;

/**
 * Makes the rows of a grid draggable.
 *   begin(row)        the dragged thing, or null if this row element cannot be dragged
 *   mark(row, after)  the place under the pointer: before or behind a row element, behind the last row (null), or nowhere (undefined)
 *   drop(thing, row, after)  it was dropped at a place
 */
export function draggable(grid, { begin, mark, drop }) {
  let pressed = null;
  let thing = null;
  let place = null;
  let scrolling = 0;

  const rowOf = (node) => node?.closest?.('.rows [role="row"]') ?? null;
  const look = ({ clientX, clientY }) => {
    const found = document.elementFromPoint(clientX, clientY);
    const row = rowOf(found);
    const isInside = grid.contains(found) && !found.closest('.head');
    const box = row?.getBoundingClientRect();
    place = isInside ? { row, after: box ? clientY > box.top + box.height / 2 : false } : null;
    mark(place ? place.row : undefined, place?.after ?? false);
  };
  const scroll = () => {
    const { top, bottom } = grid.getBoundingClientRect();
    const { clientY } = pressed.last;
    const by = clientY < top + 2 * EDGE ? -STEP : clientY > bottom - EDGE ? STEP : 0;
    if (by !== 0) { grid.scrollTop += by; look(pressed.last); }
  };
  const cancel = (event) => { if (event.key === 'Escape') { event.preventDefault(); end(); } };
  const start = () => {
    thing = begin(pressed.row);
    if (thing === null) { end(); return; }
    grid.setPointerCapture(pressed.id);
    grid.classList.add('dragging');
    addEventListener('keydown', cancel, { capture: true });
    scrolling = setInterval(scroll, 50);
    look(pressed.last);
  };
  const end = () => {
    clearTimeout(pressed?.timer);
    clearInterval(scrolling);
    grid.classList.remove('dragging');
    removeEventListener('keydown', cancel, { capture: true });
    if (thing !== null) mark(undefined, false);
    [pressed, thing, place] = [null, null, null];
  };

  grid.addEventListener('pointerdown', (event) => {
    end();
    const row = rowOf(event.target);
    if (!row || !event.isPrimary || event.button !== 0 || event.target.closest('button, a, input')) return;
    pressed = { row, id: event.pointerId, isTouch: event.pointerType === 'touch', x: event.clientX, y: event.clientY, last: event };
    if (pressed.isTouch) pressed.timer = setTimeout(start, LONG_PRESS_MS);
  });
  grid.addEventListener('pointermove', (event) => {
    if (pressed?.id !== event.pointerId) return;
    pressed.last = event;
    const isFar = Math.hypot(event.clientX - pressed.x, event.clientY - pressed.y) > THRESHOLD;
    if (thing !== null) look(event);
    else if (isFar && pressed.isTouch) end();
    else if (isFar) start();
  });
  grid.addEventListener('pointerup', (event) => {
    if (pressed?.id !== event.pointerId) return;
    const [dragged, at] = [thing, place];
    end();
    if (dragged === null) return;
    // The end of a drag is no click on a row.
    const swallow = (click) => click.stopPropagation();
    grid.addEventListener('click', swallow, { capture: true, once: true });
    setTimeout(() => grid.removeEventListener('click', swallow, { capture: true }));
    if (at) drop(dragged, at.row, at.after);
  });
  grid.addEventListener('pointercancel', end);
  // During a drag, a finger does not scroll, and a long press opens no menu.
  grid.addEventListener('touchmove', (event) => { if (thing !== null) event.preventDefault(); }, { passive: false });
  grid.addEventListener('contextmenu', (event) => { if (pressed?.isTouch) event.preventDefault(); });
}
