import { describe, expect, it } from 'vitest'
import { judge, tableOf, type Evidence } from '../../scripts/demo/verdict.ts'
import type { DeadLetter } from '../../src/dead-letter.ts'
import { bytesOf } from '../../src/record.ts'
import type { ConsumerRecord } from '../../src/record.ts'

const deliveries = ['push-1', 'push-2', 'star-1'].map((id) => ({
  id,
  event: id.slice(0, 4),
  headers: {},
  body: `{"id":"${id}"}`,
}))
const records: ConsumerRecord[] = deliveries.map(({ id, body }, offset) => ({
  topic: 'github',
  partition: 0,
  offset,
  timestampMs: 0,
  key: null,
  value: bytesOf(body),
  headers: [{ key: 'x-github-delivery', value: bytesOf(id) }],
}))
const [first, second, third] = records as [ConsumerRecord, ConsumerRecord, ConsumerRecord]

/** Only what the verdict reads of a letter. */
function letter(record: ConsumerRecord): DeadLetter {
  return { record, reason: 'invalid' } as DeadLetter
}

/** Two handled and one dead letter, as it should be, but for what is given. */
function evidence(changed: Partial<Evidence> = {}): Evidence {
  const acknowledged = new Map(deliveries.map(({ id }, n) => [id, records[n] ?? first]))
  return { deliveries, acknowledged, records, handled: [first, third], letters: [letter(second)], lag: 0, ...changed }
}

describe('the verdict of the demo', () => {
  it('has nothing to say where every delivery is once where it belongs, and counts them', () => {
    const { rows, problems } = judge(evidence())

    expect(problems).toEqual([])
    expect(rows).toMatchObject([
      { event: 'push', sent: 2, handled: 1, deadLettered: { invalid: 1 } },
      { event: 'star', sent: 1, handled: 1, deadLettered: {} },
    ])
    expect(tableOf(rows).split('\n').at(-1)).toMatch(/^together +3 +2 +1$/)
  })

  it.each<[what: string, changed: Partial<Evidence>, problem: RegExp]>([
    ['that was never acknowledged', { acknowledged: new Map() }, /push-1: was never acknowledged/],
    ['that is missing from the log', { records: [first, second] }, /star-1: is missing from the log/],
    ['that is doubled in the log', { records: [...records, { ...third, offset: 3 }] }, /star-1: is in the log 2 times/],
    [
      'that is not where its acknowledgement says',
      { records: [first, second, { ...third, partition: 1 }] },
      /star-1: is not where/,
    ],
    ['that changed', { records: [first, second, { ...third, value: null }] }, /star-1: its value changed/],
    ['that nobody handled', { handled: [first] }, /star-1: was handled 0 times and is 0 dead letters/],
    ['that was handled twice', { handled: [first, third, third] }, /star-1: was handled 2 times/],
    [
      'that was handled and is a dead letter',
      { letters: [letter(second), letter(third)] },
      /star-1: was handled 1 times and is 1 dead letters/,
    ],
    ['that nobody sent', { handled: [first, third, { ...third, offset: 9 }] }, /4 records were handled/],
    ['whose commit is missing', { lag: 1 }, /has not committed 1/],
  ])('notices one %s', (_what, changed, problem) => {
    expect(judge(evidence(changed)).problems.join('\n')).toMatch(problem)
  })
})
