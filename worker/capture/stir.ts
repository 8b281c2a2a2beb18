/**
 * Keeps Chromium from taking a page's animation for all that will ever move.
 *
 * Chromium's capturer watches which part of the picture is damaged by each frame. Once one rectangle has made up two thirds
 * of all damage for a second, it locks onto that rectangle's rhythm, and refuses frames that damage another one until 250 ms
 * after the last that fits (media/capture/content/animated_content_sampler.cc; no flag and no command turns it off). Beside
 * a spinner, the first quarter of a second of a slide change was lost, and single frames all along.
 *
 * So, while a page moves, some frames also damage one of two nearly full rectangles in turn: the picture without its top and
 * left edge, and without its bottom and right one. Each of the two has at most half of all damage. With two of three frames
 * stirred, which a page that captures itself does frame by frame, the page's own rectangle has at most two thirds, whatever
 * its size, so none is ever locked onto; a page that is stirred from outside has 20 of up to 60 stirred, which leaves only
 * rectangles larger than two thirds of the picture. The veil that does it is a transparent layer whose opacity goes from 0
 * to 0.001, which changes no pixel; it costs the compositor a redraw of what is drawn already.
 *
 * A stirred frame looks like a moving page. So that a page that has become still stays still, stirring pauses by itself:
 * for every third frame, or for a moment after each second.
 */
import type { CDPSession } from 'puppeteer-core';

/**
 * Puts a function that stirs the page under a name into its world. Must be self-contained: injected as text, into an isolated
 * world.
 */
export function installStir(name: string): void {
  let veils: HTMLElement[] = [];
  let turn = 0;
  const build = () => {
    const host = document.createElement('div');
    host.style.cssText = 'all:initial;position:fixed;inset:0;z-index:2147483647;pointer-events:none;contain:strict';
    const shadow = host.attachShadow({ mode: 'closed' });
    veils = ['1px 0 0 1px', '0 1px 1px 0'].map((inset) => {
      const veil = document.createElement('div');
      veil.style.cssText = `position:absolute;inset:${inset};background:#000;opacity:0;will-change:opacity`;
      shadow.append(veil);
      return veil;
    });
    document.documentElement.append(host);
  };
  (globalThis as unknown as Record<string, () => void>)[name] = () => {
    if (!veils[0]?.isConnected) build();
    turn = 1 - turn;
    const veil = veils[turn] as HTMLElement;
    veil.style.opacity = veil.style.opacity === '0' ? '0.001' : '0';
  };
}

/** Stirs twenty times in the second after it is called; calls meanwhile, and shortly after, are left out. Self-contained. */
function installStirring(name: string, stir: string): void {
  const scope = globalThis as unknown as Record<string, () => void>;
  let rest = 0;
  scope[name] = () => {
    if (performance.now() < rest) return;
    rest = Infinity;
    let left = 20;
    const timer = setInterval(() => {
      scope[stir]?.();
      left -= 1;
      if (left > 0) return;
      clearInterval(timer);
      // frames that were stirred are through by then: only a page that moves by itself is stirred again
      rest = performance.now() + 150;
    }, 50);
  };
}

/** Stirs a page from outside, in an isolated world of its main frame. Call it whenever the page was seen to move. */
export function createStirrer(session: CDPSession, world: string) {
  let busy = false;
  let context: Promise<number> | null = null;
  const call = (executionContextId: number, declaration: string, ...args: string[]) =>
    session.send('Runtime.callFunctionOn', {
      functionDeclaration: declaration,
      executionContextId,
      arguments: args.map((value) => ({ value })),
    });
  const install = async (): Promise<number> => {
    const { frameTree } = await session.send('Page.getFrameTree');
    const { executionContextId } = await session.send('Page.createIsolatedWorld', { frameId: frameTree.frame.id, worldName: world });
    await call(executionContextId, installStir.toString(), 'stir');
    await call(executionContextId, installStirring.toString(), 'stirring', 'stir');
    return executionContextId;
  };
  return async (): Promise<void> => {
    if (busy) return;
    busy = true;
    try {
      context ??= install();
      await call(await context, 'function() { globalThis.stirring(); }');
    } catch {
      // another document is there now, or none
      context = null;
    } finally {
      busy = false;
    }
  };
}
