/** One recording in this process (by screenshots: a page on plain http can't capture itself), as `startRecorder` makes it, of a page for which these addresses are open; prints how it ended. */
import { startRecorder } from '../helpers/recorder.ts';

const [url = '', webrtc = 'proxied', ...allow] = process.argv.slice(2);
const run = await startRecorder({ engine: 'screencast', request: { url, audio: false, maxDuration: 4 }, settings: { outbound: { allow, own: [] } }, webrtc: webrtc as 'proxied' | 'direct' });
const { error, stats } = await run.ended;
const warnings = run.reports.flatMap(({ message }) => (message.type === 'warning' ? [message.message] : []));
process.stdout.write(`${JSON.stringify({ error, frames: stats.frames, warnings })}\n`);
process.exit(0);
