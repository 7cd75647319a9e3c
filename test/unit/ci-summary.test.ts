import { describe, expect, it } from 'vitest'
import { summarise, type TestRun } from '../../scripts/ci-summary.ts'

function run(...tests: [status: string, fullName: string][]): TestRun {
  const failed = tests.some(([status]) => status === 'failed')
  const assertionResults = tests.map(([status, fullName]) => ({ status, fullName }))
  return {
    success: !failed,
    testResults: [{ status: failed ? 'failed' : 'passed', name: 'x.test.ts', assertionResults }],
  }
}

describe('summarise', () => {
  it('adds tests and steps', () => {
    const steps = 'passed\tnpm ci\npassed\tnpm test\npassed\tnpm run lint\n'

    expect(summarise(steps, run(['passed', 'a'], ['passed', 'b']))).toMatchObject({ passed: 4, failed: 0, skipped: 0 })
  })

  it('counts a failed test once, not its step too', () => {
    const steps = 'passed\tnpm ci\nfailed\tnpm test\nfailed\tnpm run lint\n'

    expect(summarise(steps, run(['passed', 'a'], ['failed', 'b']))).toEqual({
      passed: 2,
      failed: 2,
      skipped: 0,
      problems: ['failed: b', 'failed: npm run lint'],
    })
  })

  it.each(['skipped', 'pending', 'todo'])('counts a test that is %s without a reason as failed', (status) => {
    const tests = run(['passed', 'a'], [status, 'b'])

    expect(summarise('passed\tnpm test\n', tests)).toMatchObject({ passed: 1, failed: 1, skipped: 0 })
    expect(summarise('passed\tnpm test\n', tests, { b: 'needs a reason' })).toMatchObject({ failed: 0, skipped: 1 })
  })

  it('counts a file that did not load', () => {
    const broken: TestRun = {
      success: false,
      testResults: [...run(['passed', 'a']).testResults, { status: 'failed', name: 'y.test.ts', assertionResults: [] }],
    }

    expect(summarise('failed\tnpm test\n', broken)).toMatchObject({
      passed: 1,
      failed: 1,
      problems: ['failed: y.test.ts'],
    })
  })

  it.each([
    ['left no report', undefined],
    ['ran nothing', { success: true, testResults: [] }],
    ['failed beside its tests', { ...run(['passed', 'a']), success: false }],
  ])('counts a test run that %s', (_name, tests) => {
    expect(summarise('passed\tnpm test\n', tests).failed).toBe(1)
  })
})
