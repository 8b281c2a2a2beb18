/** The browser's command line, ours alone: neither puppeteer's defaults nor a package's. */

export type FlagOptions = {
  kind: 'chrome' | 'headless-shell';
  sandbox: boolean;
  /** Whether the browser's processes may exchange pictures in /dev/shm; in the temporary directory otherwise. */
  devShm: boolean;
  width: number;
  height: number;
  /** Port of the recording's proxy on 127.0.0.1, through which all traffic goes. */
  proxyPort: number;
  profileDirectory: string;
  /** Title by which tab capture finds its target; Chrome only. */
  captureTitle: string;
  /** Whether the recorder gives the frames' rhythm (HeadlessExperimental.beginFrame); headless shell only. */
  paced: boolean;
  webrtc: 'proxied' | 'direct';
  /** The caller's own. */
  switches?: readonly string[] | undefined;
};

export function browserFlags(options: FlagOptions): string[] {
  return [
    options.kind === 'chrome' ? '--headless=new' : '--headless',
    // no debugging port: commands come through two file descriptors
    '--remote-debugging-pipe',
    `--user-data-dir=${options.profileDirectory}`,
    `--window-size=${options.width},${options.height}`,
    ...(options.sandbox ? [] : ['--no-sandbox']),
    ...(options.devShm ? [] : ['--disable-dev-shm-usage']),
    ...network(options),
    ...picture(options),
    ...sound,
    ...calm,
    ...(options.kind === 'chrome'
      ? [`--auto-select-tab-capture-source-by-title=${options.captureTitle}`]
      : // headless shell has no tab picker: its stand-in grants the tab that asks
        // windows: Chrome blocks those that no gesture opens, the shell has a switch against all
        ['--use-fake-ui-for-media-stream', '--block-new-web-contents']),
    // for frames of one site; each other site has a process of its own whatever this says (recorder.ts counts those)
    '--renderer-process-limit=8',
    ...(options.switches ?? []),
    'about:blank',
  ];
}

const network = ({ proxyPort, webrtc }: FlagOptions): string[] => [
  `--proxy-server=http://127.0.0.1:${proxyPort}`,
  // by default Chromium bypasses a proxy for loopback and link-local addresses
  '--proxy-bypass-list=<-loopback>',
  // QUIC is UDP, which would pass the proxy by
  '--disable-quic',
  ...(webrtc === 'proxied'
    ? [
        '--force-webrtc-ip-handling-policy=disable_non_proxied_udp',
        // names are the proxy's to resolve; WebRTC by UDP, though, has peers and servers whose names it must resolve itself
        '--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1',
      ]
    : []),
];

const picture = ({ paced }: FlagOptions): string[] => [
  // without a GPU the software compositor is the fast path; SwiftShader gave 4 frames a second
  '--disable-gpu',
  '--hide-scrollbars',
  '--force-device-scale-factor=1',
  // the page is always "seen"; the controller's tab never is, and must not be slowed down
  '--disable-background-timer-throttling',
  '--disable-backgrounding-occluded-windows',
  '--disable-renderer-backgrounding',
  ...(paced ? ['--enable-begin-frame-control', '--run-all-compositor-stages-before-draw'] : []),
];

const sound = ['--autoplay-policy=no-user-gesture-required'];

/** What a desktop browser does beside showing a page. */
const calm = [
  '--no-first-run',
  '--no-default-browser-check',
  '--disable-background-networking',
  '--disable-breakpad',
  '--disable-client-side-phishing-detection',
  '--disable-component-update',
  '--disable-component-extensions-with-background-pages',
  '--disable-default-apps',
  '--disable-domain-reliability',
  '--disable-extensions',
  '--disable-hang-monitor',
  '--disable-infobars',
  '--disable-notifications',
  '--disable-prompt-on-repost',
  '--disable-search-engine-choice-screen',
  '--disable-sync',
  // with background networking off, full Chromium still asks for its owner's account and for updates: into the void
  '--gaia-url=http://127.0.0.1:1',
  '--component-updater=url-source=http://127.0.0.1:1/',
  '--metrics-recording-only',
  '--no-pings',
  '--no-service-autorun',
  '--password-store=basic',
  '--use-mock-keychain',
  `--disable-features=${[
    'AcceptCHFrame',
    'AutofillServerCommunication',
    'CalculateNativeWinOcclusion',
    'DestroyProfileOnBrowserClose',
    'DialMediaRouteProvider',
    'GlobalMediaControls',
    'InterestFeedContentSuggestions',
    'MediaRouter',
    'NetworkTimeServiceQuerying',
    'OptimizationHints',
    'PaintHolding',
    'Translate',
    // a renderer for the popup of an address bar that nobody sees: 45 MB, and half a second of a processor at each start
    'WebUIOmniboxAimPopup',
    'WebUIOmniboxPopup',
  ].join(',')}`,
];
