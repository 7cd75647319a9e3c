/**
 * The last line of `.ci/run`: how many passed, failed and were skipped, over all tests and all other steps.
 *
 *   node scripts/ci-summary.ts STEPS TESTS
 *
 * STEPS has a line for each step, `passed` or `failed`, a tab and its name; TESTS is what vitest's JSON reporter wrote.
 */
import { existsSync, readFileSync } from 'node:fs'

/** Tests that may be skipped, by their full name, each with the reason. Any other skipped test counts as failed. */
const allowedSkips: Readonly<Record<string, string>> = {}

/** The step whose outcome is counted test by test. */
const TEST_STEP = 'npm test'

/** What vitest says of one run, as far as it is counted. */
export interface TestRun {
  readonly success: boolean
  readonly testResults: readonly {
    readonly status: string
    readonly name: string
    readonly assertionResults: readonly { readonly status: string; readonly fullName: string }[]
  }[]
}

/** The sum, and what to look at. */
export interface Summary {
  readonly passed: number
  readonly failed: number
  readonly skipped: number
  readonly problems: readonly string[]
}

/**
 * Adds up. A test file that failed without a failed test (it did not load) counts as one failure, and so does a test run
 * that failed for no reason that it names, or that left no report.
 */
export function summarise(
  steps: string,
  run: TestRun | undefined,
  allowed: Readonly<Record<string, string>> = allowedSkips,
): Summary {
  const problems: string[] = []
  const count = { passed: 0, failed: 0, skipped: 0 }
  for (const file of run?.testResults ?? []) {
    for (const { status, fullName } of file.assertionResults) {
      if (status === 'passed') count.passed++
      else if (status !== 'failed' && Object.hasOwn(allowed, fullName)) count.skipped++
      else problems.push(`${status === 'failed' ? 'failed' : 'skipped without a reason'}: ${fullName}`)
    }
    if (file.status !== 'passed' && !file.assertionResults.some(({ status }) => status === 'failed')) {
      problems.push(`failed: ${file.name}`)
    }
  }
  for (const line of steps.split('\n').filter((text) => text !== '')) {
    const [result, name = ''] = line.split('\t')
    if (name === TEST_STEP) {
      const isExplained = problems.length > 0
      if ((result !== 'passed' || run?.success !== true || count.passed === 0) && !isExplained)
        problems.push(`failed: ${name}`)
    } else if (result === 'passed') count.passed++
    else problems.push(`failed: ${name}`)
  }
  return { ...count, failed: problems.length, problems }
}

if (import.meta.main) {
  const [stepsFile = '', testsFile = ''] = process.argv.slice(2)
  const run = existsSync(testsFile) ? (JSON.parse(readFileSync(testsFile, 'utf8')) as TestRun) : undefined
  const { passed, failed, skipped, problems } = summarise(readFileSync(stepsFile, 'utf8'), run)
  for (const problem of problems) console.log(problem)
  console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`)
  if (failed > 0) process.exitCode = 1
}
