/** A page of Chromium that publishes as Ant Media's own SDK does, by the same messages: a counted picture and a tone. */
import { launchBrowser, openPage } from './receiver.ts';
import type { Message } from './signalling.ts';

export interface PagePublisherOptions {
  /** WebSocket URL of the signalling. */
  url: string;
  streamId: string;
  width?: number;
  height?: number;
  /** Of the tone, in Hz; default 1000. */
  frequency?: number;
}

export interface PagePublisher extends AsyncDisposable {
  /** What the server said so far. */
  messages(): Promise<Message[]>;
  /** Frames drawn so far. */
  drawn(): Promise<number>;
  /** Sends any text over the signalling socket. */
  send(text: string): Promise<void>;
  /** The sender's outbound-rtp statistics of the picture. */
  stats(): Promise<Record<string, any>>;
}

/** Resolves once the socket is open and `publish` is sent. */
export async function publishFromPage({ url, streamId, width = 320, height = 180, frequency = 1000 }: PagePublisherOptions): Promise<PagePublisher> {
  await using stack = new AsyncDisposableStack();
  const { browser } = stack.use(await launchBrowser([]));
  const page = await openPage(browser, new URL('/', url.replace(/^ws/, 'http')).href);
  await page.evaluate(inPage, { url, streamId, width, height, frequency });
  const all = stack.move();
  return {
    messages: () => page.evaluate('published.messages') as Promise<Message[]>,
    drawn: () => page.evaluate('published.drawn') as Promise<number>,
    send: (text) => page.evaluate((each) => (globalThis as any).published.socket.send(each), text),
    stats: () => page.evaluate('published.stats()') as Promise<Record<string, any>>,
    [Symbol.asyncDispose]: () => all[Symbol.asyncDispose](),
  };
}

async function inPage({ url, streamId, width, height, frequency }: Required<PagePublisherOptions>): Promise<void> {
  const canvas = Object.assign(document.createElement('canvas'), { width, height });
  const drawing = canvas.getContext('2d') as CanvasRenderingContext2D;
  const published = { messages: [] as any[], drawn: 0, socket: new WebSocket(url), stats: async () => ({}) as any };
  (globalThis as any).published = published;
  setInterval(() => {
    const { drawn } = published;
    drawing.fillStyle = `hsl(${(drawn * 7) % 360} 80% 50%)`;
    drawing.fillRect(0, 0, width, height);
    drawing.fillStyle = '#fff';
    drawing.fillRect((drawn * 5) % width, 0, 20, height);
    published.drawn += 1;
  }, 1000 / 25);
  const context = new AudioContext();
  const tone = new OscillatorNode(context, { frequency });
  const sound = new MediaStreamAudioDestinationNode(context);
  tone.connect(sound);
  tone.start();
  const media = new MediaStream([...canvas.captureStream(25).getTracks(), ...sound.stream.getTracks()]);

  const send = (message: object) => published.socket.send(JSON.stringify(message));
  let connection: RTCPeerConnection;
  const early: RTCIceCandidateInit[] = [];
  const on: Record<string, (message: any) => Promise<void>> = {
    async start() {
      connection = new RTCPeerConnection();
      for (const track of media.getTracks()) connection.addTrack(track, media);
      const video = connection.getTransceivers().find(({ sender }) => sender.track?.kind === 'video');
      const codecs = RTCRtpSender.getCapabilities('video')?.codecs ?? [];
      video?.setCodecPreferences(codecs.filter(({ mimeType, sdpFmtpLine }) => mimeType === 'video/H264' && sdpFmtpLine?.includes('packetization-mode=1')));
      connection.onicecandidate = ({ candidate }) => {
        if (candidate) send({ command: 'takeCandidate', streamId, label: candidate.sdpMLineIndex, id: candidate.sdpMid, candidate: candidate.candidate });
      };
      published.stats = async () => [...(await connection.getStats()).values()].find((each) => each.type === 'outbound-rtp' && each.kind === 'video');
      await connection.setLocalDescription();
      send({ command: 'takeConfiguration', streamId, type: 'offer', sdp: connection.localDescription?.sdp });
    },
    async takeConfiguration({ sdp, type }) {
      await connection.setRemoteDescription({ sdp, type });
      for (const candidate of early.splice(0)) await connection.addIceCandidate(candidate);
    },
    async takeCandidate({ label, id, candidate }) {
      const init = { candidate, sdpMLineIndex: label, sdpMid: id };
      if (connection.remoteDescription) await connection.addIceCandidate(init);
      else early.push(init);
    },
  };
  published.socket.onmessage = ({ data }) => {
    const message = JSON.parse(data as string);
    published.messages.push(message);
    void on[message.command as string]?.(message);
  };
  await new Promise((resolve, reject) => {
    published.socket.onopen = resolve;
    published.socket.onerror = () => reject(new Error('the socket did not open'));
  });
  send({ command: 'publish', streamId, token: '', subscriberId: '', subscriberCode: '', streamName: '', mainTrack: '', video: true, audio: true, metaData: '', role: '' });
}
