/** One recording in a process of its own, as `startRecorder` makes it: its options are a JSON argument, how it ended is its last line. */
import { startRecorder, type RecorderRunOptions } from './recorder.ts';

const run = await startRecorder(JSON.parse(process.argv[2] ?? '{}') as RecorderRunOptions);
const { error, stats } = await run.ended;
const warnings = run.reports.flatMap(({ message }) => (message.type === 'warning' ? [message.message] : []));
process.stdout.write(`${JSON.stringify({ error, frames: stats.frames, warnings })}\n`);
process.exit(0);
