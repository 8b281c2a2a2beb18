import type { Reporter, TestCase } from 'vitest/node';

/** At the end of a run, names the tests that passed at their second try only: a run that is green by luck says so. */
export default class SecondTries implements Reporter {
  readonly #lucky: string[] = [];

  onTestCaseResult(test: TestCase): void {
    if (!test.diagnostic()?.flaky) return;
    const [error] = test.result().errors ?? [];
    this.#lucky.push(`${test.module.relativeModuleId} > ${test.fullName}${error ? `: ${error.message.split('\n', 1)[0]}` : ''}`);
  }

  onTestRunEnd(): void {
    if (this.#lucky.length === 0) return;
    process.stdout.write(`\nPassed at the second try only (${this.#lucky.length}), to be looked at:\n${this.#lucky.map((each) => `  ${each}\n`).join('')}`);
  }
}
