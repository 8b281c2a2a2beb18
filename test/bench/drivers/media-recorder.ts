/** Records a tab by MediaRecorder on a controller page, and writes what comes by WebSocket to a file. */
import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { WebSocketServer } from 'ws';
import { drive } from './driver.ts';

await drive(async (browser, page, options) => {
  const file = createWriteStream(options.file);
  const server = new WebSocketServer({ host: '127.0.0.1', port: 0 });
  await once(server, 'listening');
  const received = new Promise<void>((resolve) => {
    server.on('connection', (socket) => {
      socket.on('message', (data: Buffer) => file.write(data));
      socket.once('close', () => file.end(resolve));
    });
  });

  await page.evaluate(() => {
    document.title = 'to be recorded';
  });
  const controller = await browser.newPage();
  await controller.goto(options.controllerUrl);
  await controller.evaluate(async ({ width, height, frameRate }) => {
    const plain = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    const stream = await navigator.mediaDevices.getDisplayMedia({ video: { width, height, frameRate, displaySurface: 'browser' }, audio: plain });
    Object.assign(globalThis, { stream });
  }, options);
  await page.bringToFront();
  await page.goto(options.url);
  await controller.evaluate(
    async ({ mimeType, videoBitrate, audioBitrate }, port) => {
      const { stream } = globalThis as unknown as { stream: MediaStream };
      const socket = new WebSocket(`ws://127.0.0.1:${port}`);
      await new Promise((resolve) => {
        socket.onopen = resolve;
      });
      const recorder = new MediaRecorder(stream, { mimeType, videoBitsPerSecond: videoBitrate, audioBitsPerSecond: audioBitrate });
      let sending: Promise<void> = Promise.resolve();
      recorder.ondataavailable = ({ data }) => {
        sending = sending.then(async () => socket.send(await data.arrayBuffer()));
      };
      const stopped = new Promise((resolve) => {
        recorder.onstop = resolve;
      });
      recorder.start(1000);
      const stopRecorder = async () => {
        recorder.stop();
        await stopped;
        await sending;
        socket.close();
      };
      Object.assign(globalThis, { stopRecorder });
    },
    options,
    (server.address() as AddressInfo).port,
  );
  return async () => {
    await controller.evaluate(() => (globalThis as unknown as { stopRecorder(): Promise<void> }).stopRecorder());
    await received;
  };
});
