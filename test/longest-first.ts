import { BaseSequencer, type TestSpecification } from 'vitest/node';

/** Files that take half a minute and more, by what comes before `.test.ts`: one of them that begins last leaves a core idle at the end of a run. */
const long = [
  'page-media', 'command-line', 'pages', 'crashes', 'rotation', 'control', 'trouble', 'recorder-push', 'request', 'secrets', 'runtimes', 'doctor', 'media-push',
  'commands', 'two-machines', 'scale-in', 'outbound-names', 'live', 'outbound', 'consumer', 'api', 'push', 'worker', 'storage-s3', 'server',
];

const placeOf = ({ moduleId }: TestSpecification): number => {
  const place = long.indexOf(/([^/]+)\.test\.ts$/.exec(moduleId)?.[1] ?? '');
  return place === -1 ? long.length : place;
};

export default class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    return (await super.sort(files)).toSorted((a, b) => placeOf(a) - placeOf(b));
  }
}
