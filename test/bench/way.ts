/** A way of recording a page, ours or another, behind one interface. */
import type { FoundBrowser } from '../../worker/browser/find.ts';
import type { Group } from './group.ts';

/** The same for all ways. */
export const picture = { width: 1280, height: 720, frameRate: 30 };
/** Bits per second. */
export const VIDEO_BITRATE = 3_000_000;
export const AUDIO_BITRATE = 128_000;

export type RunContext = {
  /** Of the page to record. */
  url: string;
  /** Of a blank page on the same loopback origin. */
  controllerUrl: string;
  /** An empty directory for what this run leaves. */
  directory: string;
  /** Which all processes of the run belong to. */
  group: Group;
};

export type RunningWay = {
  /** What is charged. */
  group: Group;
  /** What runs elsewhere in a real deployment: told apart. */
  edge: Group | null;
  /** It works on after the recording's end, which is charged too: all of it then, from the begin on. */
  lags?: boolean;
  /** Ends it in good order. @returns the path of the recording; null where nothing is recorded. */
  stop(): Promise<string | null>;
};

export type Way = {
  name: string;
  /** A line for the document: what exactly runs. */
  what: string;
  /** Whose pictures it records, to compare with what that browser draws; null where nothing is recorded. */
  draws: FoundBrowser['kind'] | null;
  /** Resolves when the page is loaded and is being recorded. */
  start(context: RunContext): Promise<RunningWay>;
};
