/** Finding the execution contexts that scripts of ours run in. */
import type { CDPSession } from 'puppeteer-core';

/** Id of the page's own context in its main frame. */
export async function mainContext(session: CDPSession): Promise<number> {
  const found = new Promise<number>((resolve) => {
    session.on('Runtime.executionContextCreated', ({ context }) => {
      if ((context.auxData as { isDefault?: boolean } | undefined)?.isDefault) resolve(context.id);
    });
  });
  // enabling reports every context there is
  await session.send('Runtime.enable');
  return found;
}
