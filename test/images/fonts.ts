/** A page in many scripts that tells its server which letters no font has. */
import { createServer, type IncomingMessage } from 'node:http';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';

export const samples: Readonly<Record<string, string>> = {
  Latin: 'Hamburgefonts ÀÉÎÕÜ ßøåłž',
  Greek: 'Ξεσκεπάζω την ψυχοφθόρα',
  Cyrillic: 'Съешь ещё этих мягких',
  Chinese: '天地玄黄 宇宙洪荒 繁體中文',
  Japanese: 'いろはにほへと カタカナ 日本語',
  Korean: '다람쥐 헌 쳇바퀴에 타고파',
  Arabic: 'نص حكيم له سر قاطع',
  Hebrew: 'דג סקרן שט בים מאוכזב',
  Hindi: 'ऋषियों को सताने वाले',
  Thai: 'เป็นมนุษย์สุดประเสริฐ',
  Emoji: '😀 🎉 🚀 ❤️ 👩‍💻 🇪🇺 🏳️‍🌈 👍🏽',
  Symbols: '→ ✓ ∑ √ ∞ ≠ € ₹ ♫ ★',
};

const page = `<!doctype html>
<html lang="en"><meta charset="utf-8"><title>fonts</title>
<style>
  body { font: 30px sans-serif; margin: 16px 24px; background: #fff; color: #111; }
  p { margin: 0; display: flex; line-height: 1.75; } b { width: 180px; font-weight: normal; color: #667; } i { margin-left: 20px; color: #c00; }
</style>
<body>
<script>
const samples = ${JSON.stringify(samples)};
const canvas = new OffscreenCanvas(64, 64), context = canvas.getContext('2d', { willReadFrequently: true });
const pictureOf = (text) => {
  context.clearRect(0, 0, 64, 64); context.font = '32px sans-serif'; context.fillText(text, 8, 44);
  return context.getImageData(0, 0, 64, 64).data.join();
};
// what is drawn for letters that nobody has: noncharacters
const none = new Set(['\\u{3fffd}', '\\u{10fffd}', '\\u{0378}', '\\uffff'].map(pictureOf));
const empty = pictureOf(' ');
const missing = {};
for (const [name, text] of Object.entries(samples)) {
  const letters = [...new Intl.Segmenter('en', { granularity: 'grapheme' }).segment(text)].map(({ segment }) => segment).filter((segment) => segment.trim() !== '');
  const without = letters.filter((letter) => { const picture = pictureOf(letter); return none.has(picture) || picture === empty; });
  if (without.length > 0) missing[name] = without.join(' ');
  const line = document.createElement('p');
  line.append(Object.assign(document.createElement('b'), { textContent: name }), text, Object.assign(document.createElement('i'), { textContent: without.join(' ') }));
  document.body.append(line);
}
// colour fonts have more than one hue
context.clearRect(0, 0, 64, 64); context.font = '32px sans-serif'; context.fillText('🎉', 8, 44);
const { data } = context.getImageData(0, 0, 64, 64);
let coloured = 0;
for (let i = 0; i < data.length; i += 4) if (data[i + 3] > 128 && Math.abs(data[i] - data[i + 2]) > 60) coloured += 1;
fetch('/', { method: 'POST', body: JSON.stringify({ missing, coloured }) });
</script>
</body></html>`;

export type FontReport = {
  /** By script; empty where all letters have a font. */
  missing: Record<string, string>;
  /** Pixels of an emoji that are not grey. */
  coloured: number;
};

export async function startFontPage(): Promise<AsyncDisposable & { url: string; reports: readonly FontReport[] }> {
  const reports: FontReport[] = [];
  const server = createServer(async (request: IncomingMessage, response) => {
    if (request.method === 'POST') {
      const chunks: Buffer[] = [];
      for await (const chunk of request) chunks.push(chunk as Buffer);
      reports.push(JSON.parse(Buffer.concat(chunks).toString()) as FontReport);
    }
    response.setHeader('content-type', 'text/html; charset=utf-8').end(request.method === 'POST' ? '' : page);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    reports,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
    },
  };
}
