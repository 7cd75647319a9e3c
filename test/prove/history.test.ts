/** The checker of histories: it passes what may happen, and catches each thing that may not. */
import { describe, expect, it } from 'vitest'
import { check, type Verdict } from '../../prove/history/check.ts'
import type { HistoryEvent, Item, ViolationKind } from '../../prove/history/history.ts'

const PLACE = 't/0'

const item = (seq: number, lane = 'a'): Item => ({ lane, seq })
const sent = (seq: number): HistoryEvent => ({ type: 'sent', ...item(seq) })
const acknowledged = (seq: number, offset: number = seq): HistoryEvent => ({
  type: 'acknowledged',
  ...item(seq),
  place: PLACE,
  offset,
})
const handled = (offset: number): HistoryEvent => ({ type: 'handled', place: PLACE, offset })
const asked = (call: number): HistoryEvent => ({ type: 'asked', call })
const committing = (offset: number): HistoryEvent => ({ type: 'committing', offsets: [{ place: PLACE, offset }] })
const committed = (offset: number, instance = 'i', generationId?: number): HistoryEvent => ({
  type: 'committed',
  instance,
  generationId,
  offsets: [{ place: PLACE, offset }],
})
const observed = (call: number, offset: number): HistoryEvent => ({
  type: 'observed',
  call,
  offsets: [{ place: PLACE, offset }],
})

function polled(call: number, offsets: readonly number[], more: Partial<Polled> = {}): HistoryEvent {
  const records = offsets.map((offset) => ({ ...item(offset), place: PLACE, offset }))
  return {
    type: 'polled',
    call,
    instance: 'i',
    generationId: 1,
    assignment: [PLACE],
    records,
    overMs: 0,
    ...more,
  }
}

type Polled = Extract<HistoryEvent, { type: 'polled' }>

function judge(events: readonly HistoryEvent[], seqs: readonly number[]): Verdict {
  return check(events, { log: new Map([[PLACE, seqs.map((seq) => item(seq))]]) }, { mostOverMs: 500 })
}

function kindsOf(events: readonly HistoryEvent[], seqs: readonly number[]): ViolationKind[] {
  return judge(events, seqs).violations.map(({ kind }) => kind)
}

/** Three records, written, read, handled and committed as they should be. */
const good: readonly HistoryEvent[] = [
  ...[0, 1, 2].flatMap((seq) => [sent(seq), acknowledged(seq)]),
  asked(1),
  polled(1, [0, 1, 2]),
  handled(0),
  handled(1),
  committing(2),
  committed(2),
  handled(2),
  committing(3),
  committed(3),
  asked(2),
  observed(2, 3),
]

describe('a history that may be', () => {
  it('has no violation, and figures', () => {
    const { violations, figures } = judge(good, [0, 1, 2])

    expect(violations).toEqual([])
    expect(figures).toMatchObject({ acknowledged: 3, handled: 3, handledAgain: 0, writtenAgain: 0, polls: 1 })
  })

  it('may hand out again what was not committed, and says how often', () => {
    const events = [...good.slice(0, 12), asked(9), polled(9, [2]), handled(2), handled(2)]

    const { violations, figures } = judge(events, [0, 1, 2])

    expect(violations).toEqual([])
    expect(figures.handledAgain).toBe(1)
  })

  it('may have a record as often as it was sent, and says how often', () => {
    const events = [sent(0), sent(0), acknowledged(0, 1), handled(0), handled(1)]

    const { violations, figures } = judge(events, [0, 0])

    expect(violations).toEqual([])
    expect(figures.writtenAgain).toBe(1)
  })

  it('may lose what was never acknowledged', () => {
    expect(kindsOf([...good, sent(3)], [0, 1, 2])).toEqual([])
  })

  it('may give a partition to another in another generation', () => {
    const other = polled(7, [], { instance: 'j', generationId: 2 })

    expect(kindsOf([...good, asked(7), other], [0, 1, 2])).toEqual([])
  })

  it('may answer a poll that has not joined without a word about partitions', () => {
    const other = polled(7, [], { instance: 'j', assignment: undefined })

    expect(kindsOf([...good, asked(7), other], [0, 1, 2])).toEqual([])
  })
})

describe('where offsets are reset', () => {
  const reset = (offset: number): HistoryEvent => ({ type: 'reset', offsets: [{ place: PLACE, offset }] })

  it('they may be lower, and what was committed comes again', () => {
    expect(kindsOf([...good, reset(1), asked(5), polled(5, [1, 2]), asked(6), observed(6, 1)], [0, 1, 2])).toEqual([])
  })

  it('a commit that is answered only then may have come before', () => {
    const late: HistoryEvent[] = [
      { type: 'committing', call: 7, offsets: [{ place: PLACE, offset: 3 }] },
      reset(2),
      { type: 'committed', call: 7, instance: 'i', generationId: 1, offsets: [{ place: PLACE, offset: 3 }] },
    ]

    expect(kindsOf([...good, ...late, asked(5), polled(5, [2])], [0, 1, 2])).toEqual([])
  })

  it('they may not be lower than that', () => {
    expect(kindsOf([...good, reset(2), asked(6), observed(6, 1)], [0, 1, 2])).toEqual(['commit lost'])
  })
})

describe('where a coordinator may look back', () => {
  const expectations = { mostOverMs: 500, mayLookBack: true }
  const log = new Map([[PLACE, [0, 1, 2].map((seq) => item(seq))]])
  const look = (isLast: boolean): HistoryEvent => ({
    type: 'observed',
    call: 8,
    offsets: [{ place: PLACE, offset: 2 }],
    isLast,
  })

  it('committed offsets may be seen as they were, and are counted', () => {
    const events = [...good, asked(7), polled(7, [2]), asked(8), look(false)]

    const { violations, figures } = check(events, { log }, expectations)

    expect(violations).toEqual([])
    expect(figures.lookedBack).toBe(2)
  })

  it('they are all there in the end', () => {
    const { violations } = check([...good, asked(8), look(true)], { log }, expectations)

    expect(violations.map(({ kind }) => kind)).toEqual(['commit lost'])
  })
})

describe('a violation is caught:', () => {
  it.each<[string, ViolationKind, readonly HistoryEvent[], readonly number[]]>([
    ['an acknowledged record that is not in the log', 'lost', good, [0, 1]],
    ['an acknowledged record whose place has another', 'lost', [...good, sent(9), acknowledged(9, 2)], [0, 1, 2]],
    ['an acknowledged record that nobody handles', 'lost', [...good, sent(3), acknowledged(3)], [0, 1, 2, 3]],
    ['records of a lane in another order', 'reordered', [sent(0), sent(1)], [1, 0]],
    ['a record that was sent once and is there twice', 'written twice', [sent(0), sent(1)], [0, 1, 1]],
    ['a record that was never sent', 'written twice', [sent(0)], [0, 7]],
    ['a record that is read with other content', 'not as written', [asked(1), polled(1, [0])], [5]],
    ['a record that is handled before the one before it', 'skipped', [handled(0), handled(2)], [0, 1, 2]],
    ['a commit beyond what is handled', 'committed ahead', [handled(0), committing(2)], [0, 1]],
    ['committed offsets beyond what is handled', 'committed ahead', [asked(1), observed(1, 1)], [0]],
    ['a commit that is gone', 'commit lost', [handled(0), committed(1), asked(1), observed(1, 0)], [0]],
    ['a committed record that comes again', 'came again', [...good, asked(5), polled(5, [2])], [0, 1, 2]],
    ['two holders in one generation', 'two holders', [...good, asked(5), polled(5, [], { instance: 'j' })], [0, 1, 2]],
    ['a commit of one holder in the generation of another', 'two holders', [...good, committed(3, 'j', 1)], [0, 1, 2]],
    [
      'an answer that the instance is unknown',
      'unknown instance',
      [{ type: 'failed', kind: 'commit', code: 'UNKNOWN_MEMBER_ID' }],
      [],
    ],
    ['a poll that is answered late', 'late', [asked(1), polled(1, [], { overMs: 501 })], []],
    ['a poll that fails late', 'late', [{ type: 'failed', kind: 'poll', code: 'TIMEOUT', overMs: 10_000 }], []],
  ])('%s', (_name, kind, events, seqs) => {
    expect(new Set(kindsOf(events, seqs))).toContain(kind)
  })

  it('and a commit that was on its way when the poll began excuses what came again', () => {
    const events = [...good.slice(0, 9), asked(5), handled(0), handled(1), committed(2), polled(5, [1])]

    expect(kindsOf(events, [0, 1, 2])).not.toContain('came again')
  })
})
