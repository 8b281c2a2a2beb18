/** Which capture an engine's name stands for, and whether its browser is to be started for pacing. */
import type { CaptureEngineName } from '../shared/recording.ts';
import type { CaptureEngine } from './capture/capture.ts';
import { screencastCapture } from './capture/screencast.ts';
import { selfCapture } from './capture/self.ts';
import { tabCapture } from './capture/tab.ts';

export function engineFor(name: CaptureEngineName): { engine: CaptureEngine; paced: boolean } {
  if (name === 'tab') return { engine: tabCapture, paced: false };
  if (name === 'self') return { engine: selfCapture(true), paced: true };
  return { engine: screencastCapture, paced: false };
}
