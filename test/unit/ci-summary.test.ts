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

    expect(summarise(steps, { 'npm test': run(['passed', 'a'], ['passed', 'b']) })).toMatchObject({
      passed: 4,
      failed: 0,
      skipped: 0,
    })
  })

  it('counts a failed test once, not its step too', () => {
    const steps = 'passed\tnpm ci\nfailed\tnpm test\nfailed\tnpm run lint\n'

    expect(summarise(steps, { 'npm test': run(['passed', 'a'], ['failed', 'b']) })).toEqual({
      passed: 2,
      failed: 2,
      skipped: 0,
      problems: ['failed: b', 'failed: npm run lint'],
    })
  })

  it.each(['skipped', 'pending', 'todo'])('counts a test that is %s without a reason as failed', (status) => {
    const tests = { 'npm test': run(['passed', 'a'], [status, 'b']) }

    expect(summarise('passed\tnpm test\n', tests)).toMatchObject({ passed: 1, failed: 1, skipped: 0 })
    expect(summarise('passed\tnpm test\n', tests, { b: 'needs a reason' })).toMatchObject({ failed: 0, skipped: 1 })
  })

  it('counts a file that did not load', () => {
    const broken: TestRun = {
      success: false,
      testResults: [...run(['passed', 'a']).testResults, { status: 'failed', name: 'y.test.ts', assertionResults: [] }],
    }

    expect(summarise('failed\tnpm test\n', { 'npm test': broken })).toMatchObject({
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
    expect(summarise('passed\tnpm test\n', { 'npm test': tests }).failed).toBe(1)
  })

  it('adds several test runs', () => {
    const steps = 'passed\tnpm test\npassed\tnpm run lint\nfailed\tnpm run test:kafka\n'
    const runs = {
      'npm test': run(['passed', 'a'], ['passed', 'b']),
      'npm run test:kafka': run(['passed', 'c'], ['failed', 'd']),
    }

    expect(summarise(steps, runs)).toEqual({ passed: 4, failed: 1, skipped: 0, problems: ['failed: d'] })
  })

  it('takes what one run names for no explanation of another', () => {
    const steps = 'failed\tnpm test\nfailed\tnpm run test:kafka\n'
    const runs = { 'npm test': run(['passed', 'a'], ['failed', 'b']), 'npm run test:kafka': undefined }

    expect(summarise(steps, runs).problems).toEqual(['failed: b', 'failed: npm run test:kafka'])
  })

  it('counts a step of tests that never ran', () => {
    const runs = { 'npm test': run(['passed', 'a']), 'npm run test:kafka': run(['passed', 'left from before']) }

    expect(summarise('passed\tnpm test\n', runs).problems).toEqual(['failed: npm run test:kafka'])
  })
})
