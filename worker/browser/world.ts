/** Hears what happens in a page, from a world of its scripts' own that the page can't reach. */
import { randomBytes } from 'node:crypto';
import type { CDPSession, Page } from 'puppeteer-core';

/**
 * Puts a listener into every document that the page opens from now on: for events that scripts in the page's own world dispatch on
 * `document`. Those hold no binding; whoever forges their events can tell no more than what they tell.
 *
 * @param names of the events; each is heard once a document at most
 * @param heard called with one of the names
 * @param entered called for each frame that has a process of its own, with their number so far; without it those are not listened to
 */
export async function listenInWorld(page: Page, names: readonly string[], heard: (name: string) => void, entered: ((count: number) => void) | null = null): Promise<void> {
  const world = `listener-${randomBytes(4).toString('hex')}`;
  const binding = `_${randomBytes(8).toString('hex')}`;
  const source = `(${tellEvents.toString()})(${JSON.stringify(binding)}, ${JSON.stringify(names)})`;

  let count = 0;

  const enter = async (session: CDPSession): Promise<void> => {
    session.on('Runtime.bindingCalled', ({ name, payload }) => {
      if (name === binding && names.includes(payload)) heard(payload);
    });
    // a frame with a process of its own is a target of its own; it waits until it has its listener
    session.on('sessionattached', (child: CDPSession) => {
      count += 1;
      entered?.(count);
      enter(child).catch(() => undefined);
    });
    await Promise.all([
      session.send('Page.enable'),
      // without this a navigation to another process loses the binding
      session.send('Runtime.enable'),
      session.send('Runtime.addBinding', { name: binding, executionContextName: world }),
      session.send('Page.addScriptToEvaluateOnNewDocument', { source, worldName: world }),
      ...(entered === null
        ? []
        : [session.send('Target.setAutoAttach', { autoAttach: true, waitForDebuggerOnStart: true, flatten: true, filter: [{ type: 'iframe' }, { exclude: true }] }), session.send('Runtime.runIfWaitingForDebugger')]),
    ]);
  };
  await enter(await page.createCDPSession());
}

/** Injected as text: it must not refer to anything outside itself. */
function tellEvents(binding: string, names: readonly string[]): void {
  const tell = (globalThis as unknown as Record<string, (payload: string) => void>)[binding];
  for (const name of names) document.addEventListener(name, () => tell?.(name), { once: true });
}
