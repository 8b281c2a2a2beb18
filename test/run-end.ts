import { writeSync } from 'node:fs';
import type { Reporter, TestCase, TestModule, TestRunEndReason } from 'vitest/node';

/** At the end of a run: names the tests that passed at their second try only, as a run that is green by luck says so, and tells main.ts. */
export default class RunEnd implements Reporter {
  readonly #lucky: string[] = [];

  onTestCaseResult(test: TestCase): void {
    if (!test.diagnostic()?.flaky) return;
    const [error] = test.result().errors ?? [];
    this.#lucky.push(`${test.module.relativeModuleId} > ${test.fullName}${error ? `: ${error.message.split('\n', 1)[0]}` : ''}`);
  }

  onTestRunEnd(_modules: readonly TestModule[], errors: readonly unknown[], reason: TestRunEndReason): void {
    if (this.#lucky.length > 0) {
      process.stdout.write(`\nPassed at the second try only (${this.#lucky.length}), to be looked at:\n${this.#lucky.map((each) => `  ${each}\n`).join('')}`);
    }
    const fd = process.env['TABREEL_TEST_RUN_END_FD'];
    if (fd !== undefined) writeSync(Number(fd), errors.length > 0 ? 'failed' : reason);
  }
}
