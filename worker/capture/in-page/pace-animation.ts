/**
 * Runs in the page's own world before its scripts: gives requestAnimationFrame the recording's rate, as a display of that rate
 * would. Full Chromium draws at 60 Hz and can't be told otherwise; what a page draws beyond the recording's rate is drawn
 * for nobody. CSS animations and videos are not touched. It holds no secret; the page may see it.
 *
 * Injected as text: it must not refer to anything outside itself.
 */
export function paceAnimation(frameRate: number): void {
  const native = window.requestAnimationFrame.bind(window);
  const interval = 1000 / frameRate;
  /** Half a frame of a 60 Hz display: its ticks come a little early or late. */
  const slack = 8;
  let waiting = new Map<number, FrameRequestCallback>();
  let running = new Map<number, FrameRequestCallback>();
  let last = 0;
  let due = -Infinity;
  let asked = false;

  const tick = (now: number) => {
    if (now < due - slack) {
      native(tick);
      return;
    }
    // an even rhythm, unless it was lost
    due = now - due > interval ? now + interval : due + interval;
    asked = false;
    // what is asked for from now on is for the next frame
    running = waiting;
    waiting = new Map();
    for (const callback of running.values()) {
      try {
        callback(now);
      } catch (error) {
        reportError(error);
      }
    }
  };
  window.requestAnimationFrame = (callback) => {
    if (typeof callback !== 'function') throw new TypeError('requestAnimationFrame takes a function');
    last += 1;
    waiting.set(last, callback);
    if (!asked) {
      asked = true;
      native(tick);
    }
    return last;
  };
  window.cancelAnimationFrame = (id) => {
    // one callback may cancel another of the same frame
    if (!waiting.delete(id)) running.delete(id);
  };
}
