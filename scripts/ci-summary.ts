/**
 * The last line of `.ci/run`: how many passed, failed and were skipped, over all tests and all other steps.
 *
 *   node scripts/ci-summary.ts STEPS 'STEP=REPORT' ...
 *
 * STEPS has a line for each step, `passed` or `failed`, a tab and its name; REPORT is what vitest's JSON reporter wrote in
 * the step of that name, which is then counted test by test.
 */
import { existsSync, readFileSync } from 'node:fs'

/** Tests that may be skipped, by their full name, each with the reason. Any other skipped test counts as failed. */
const allowedSkips: Readonly<Record<string, string>> = {}

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
 * Adds up. `runs` has what the steps of tests left, by their name, and `undefined` for one that left nothing. A test file
 * that failed without a failed test (it did not load) counts as one failure, and so does a test run that failed for no
 * reason that it names, that ran nothing, or that is missing among the steps.
 */
export function summarise(
  steps: string,
  runs: Readonly<Record<string, TestRun | undefined>>,
  allowed: Readonly<Record<string, string>> = allowedSkips,
): Summary {
  const problems: string[] = []
  const count = { passed: 0, failed: 0, skipped: 0 }
  const lines = steps.split('\n').filter((line) => line !== '')
  for (const [step, run] of Object.entries(runs)) {
    const tests = countTests(run, allowed)
    count.passed += tests.passed
    count.skipped += tests.skipped
    problems.push(...tests.problems)
    const hasSucceeded = lines.includes(`passed\t${step}`) && run?.success === true && tests.passed > 0
    if (!hasSucceeded && tests.problems.length === 0) problems.push(`failed: ${step}`)
  }
  for (const line of lines) {
    const [result, step = ''] = line.split('\t')
    if (Object.hasOwn(runs, step)) continue
    if (result === 'passed') count.passed++
    else problems.push(`failed: ${step}`)
  }
  return { ...count, failed: problems.length, problems }
}

function countTests(run: TestRun | undefined, allowed: Readonly<Record<string, string>>): Omit<Summary, 'failed'> {
  const problems: string[] = []
  let passed = 0
  let skipped = 0
  for (const file of run?.testResults ?? []) {
    for (const { status, fullName } of file.assertionResults) {
      if (status === 'passed') passed++
      else if (status !== 'failed' && Object.hasOwn(allowed, fullName)) skipped++
      else problems.push(`${status === 'failed' ? 'failed' : 'skipped without a reason'}: ${fullName}`)
    }
    if (file.status !== 'passed' && !file.assertionResults.some(({ status }) => status === 'failed')) {
      problems.push(`failed: ${file.name}`)
    }
  }
  return { passed, skipped, problems }
}

if (import.meta.main) {
  const [stepsFile = '', ...reports] = process.argv.slice(2)
  const runs = reports.map((report) => {
    const [step = '', file = ''] = report.split('=', 2)
    return [step, existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as TestRun) : undefined] as const
  })
  const { passed, failed, skipped, problems } = summarise(readFileSync(stepsFile, 'utf8'), Object.fromEntries(runs))
  for (const problem of problems) console.log(problem)
  console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`)
  if (failed > 0) process.exitCode = 1
}
