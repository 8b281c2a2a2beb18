/** Chrome's switches, as callers of the Media Push plugin name them: which are passed on to a recording's browser. */

/** What the recorder does in any case, or what changes nothing without a screen. */
const met: ReadonlySet<string> = new Set([
  '--allow-http-screen-capture',
  '--auto-accept-this-tab-capture',
  '--autoplay-policy=no-user-gesture-required',
  '--disable-audio-output',
  '--disable-background-media-suspend',
  '--disable-background-timer-throttling',
  '--disable-backgrounding-occluded-windows',
  '--disable-dev-shm-usage',
  '--disable-gpu',
  '--disable-gpu-vsync',
  '--disable-infobars',
  '--disable-renderer-backgrounding',
  '--enable-usermedia-screen-capturing',
  '--headless',
  '--headless=new',
  '--hide-scrollbars',
  '--kiosk',
  '--start-fullscreen',
  '--start-maximized',
]);

/** How the page looks, and what it is told of its visitor; nothing that opens a way past the recording's proxy or the page's own bounds. */
const passed: readonly RegExp[] = [
  /^--accept-lang=[A-Za-z0-9-]{1,35}$/,
  /^--user-agent=[\x20-\x7e]{1,512}$/,
  /^--font-render-hinting=(none|slight|medium|full|max)$/,
  /^--force-color-profile=srgb$/,
  /^--(disable-font-subpixel-positioning|disable-lcd-text|force-dark-mode|force-prefers-reduced-motion)$/,
];

/** @param list separated by commas. @returns what goes to the browser, and what is refused */
export function readSwitches(list: string): { switches: string[]; refused: string[] } {
  const switches: string[] = [];
  const refused: string[] = [];
  for (const each of list.split(',').map((text) => text.trim())) {
    if (each === '' || met.has(each)) continue;
    if (passed.some((pattern) => pattern.test(each))) switches.push(each);
    else refused.push(each);
  }
  return { switches, refused };
}
