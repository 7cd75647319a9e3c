/** The simulator bites: with a bug put between the consumer and its broker or store, some of a few worlds show it. */
import { describe, expect, test } from 'vitest'
import { simulate, type SimulationOptions } from '../../prove/run-sim/simulation.ts'
import type { OffsetCommit } from '../../src/broker.ts'
import type { DeadLetterStore } from '../../src/dead-letter.ts'
import { KedgeError } from '../../src/errors.ts'
import type { ConsumerRecord } from '../../src/record.ts'
import { withCalls } from '../support/consumer.ts'

const WORLDS = 60

type Bugs = Omit<SimulationOptions, 'seed'>

/** What the worlds complain of. Ends as soon as one does. */
async function complaintsWith(bugs: Bugs): Promise<string> {
  for (let seed = 1; seed <= WORLDS; seed++) {
    const { violations } = await simulate({ seed, ...bugs })
    if (violations.length > 0) return violations.join('\n')
  }
  return ''
}

/** A broker that changes what a run commits. */
function committing(change: (offsets: readonly OffsetCommit[]) => readonly OffsetCommit[]): Bugs {
  return {
    tamper: (broker) =>
      withCalls(broker, {
        commit: (group, offsets, options, call) =>
          broker.commit(group, offsets === 'polled' ? offsets : change(offsets), options, call),
      }),
  }
}

/** A broker that takes, as nobody's, what it would refuse. */
function accepting(code: string): Bugs {
  return {
    tamper: (broker) =>
      withCalls(broker, {
        commit: async (group, offsets, options, call) => {
          try {
            await broker.commit(group, offsets, options, call)
          } catch (error) {
            if (!(error instanceof KedgeError) || error.code !== code) throw error
            await broker.commit({ ...group, groupInstanceId: 'nobody' }, offsets)
          }
        },
      }),
  }
}

/** A broker whose answers to polls are changed. */
function polling(change: (records: readonly ConsumerRecord[]) => readonly ConsumerRecord[]): Bugs {
  return {
    tamper: (broker) =>
      withCalls(broker, {
        poll: async (request, call) => {
          const result = await broker.poll(request, call)
          return { ...result, records: change(result.records) }
        },
      }),
  }
}

function storing(put: (store: DeadLetterStore) => DeadLetterStore['put']): Bugs {
  return { tamperLetters: (store) => ({ ...store, put: put(store) }) }
}

describe('the simulator', () => {
  test('finds nothing in worlds without a bug, and plays a seed the same each time', async () => {
    const first = await simulate({ seed: 11 })
    const second = await simulate({ seed: 11 })

    expect(first.violations).toEqual([])
    expect(second).toEqual(first)
    expect(first.counts['handled']).toBeGreaterThan(0)
  })

  test('finds commits that go one record too far', async () => {
    const further = committing((offsets) => offsets.map((entry) => ({ ...entry, offset: entry.offset + 1 })))

    expect(await complaintsWith(further)).toContain('is committed and not handled')
  })

  test('finds them where records are handled together', async () => {
    const further = committing((offsets) => offsets.map((entry) => ({ ...entry, offset: entry.offset + 1 })))
    const worlds: string[] = []
    for (let seed = 1; seed <= WORLDS && worlds.length < 3; seed++) {
      const { counts, violations } = await simulate({ seed, ...further })
      if ((counts['batchesOfMany'] ?? 0) > 5) worlds.push(violations.join('\n'))
    }

    expect(worlds).toHaveLength(3)
    for (const world of worlds) expect(world).toContain('is committed and not handled')
  })

  test('finds commits that are stored one record too low', async () => {
    const lower = committing((offsets) => offsets.map((entry) => ({ ...entry, offset: Math.max(0, entry.offset - 1) })))

    expect(await complaintsWith(lower)).toMatch(/commit lost|came again|was not done/)
  })

  test('finds a broker that takes commits of a run that has lost its claim', async () => {
    expect(await complaintsWith(accepting('CLAIM_LOST'))).toMatch(/a stale commit was taken|a commit moved .* back/)
  })

  test('finds a broker that takes commits of a generation in which the partition was another instance’s', async () => {
    expect(await complaintsWith(accepting('ILLEGAL_GENERATION'))).toMatch(
      /a stale commit was taken|a commit moved .* back/,
    )
  })

  test('finds a broker that lets two runs claim one instance', async () => {
    const everyRunAlone: Bugs = {
      tamper: (broker) =>
        withCalls(broker, {
          poll: (request, call) => {
            const group = { ...request.group, groupInstanceId: request.run?.runId ?? 'x' }
            return broker.poll({ ...request, group }, call)
          },
          commit: (group, offsets, options, call) =>
            broker.commit({ ...group, groupInstanceId: options?.runId ?? 'x' }, offsets, options, call),
        }),
    }

    expect(await complaintsWith(everyRunAlone)).not.toBe('')
  })

  test('finds a broker that leaves out a record now and then', async () => {
    let polls = 0
    const gaps = polling((records) => (records.length > 2 && ++polls % 5 === 0 ? records.slice(1) : records))

    expect(await complaintsWith(gaps)).not.toBe('')
  })

  test('finds a broker that hands out other bytes than it was given', async () => {
    const spoilt = polling((records) => records.map((record) => ({ ...record, key: Uint8Array.of(107, 107) })))

    expect(await complaintsWith(spoilt)).toContain('not as written')
  })

  test('finds a dead-letter store that forgets', async () => {
    expect(await complaintsWith(storing(() => () => Promise.resolve()))).toContain('letter lost')
  })

  test('finds a dead-letter store that keeps a letter twice', async () => {
    const twice = storing((store) => async (letter, call) => {
      await store.put(letter, call)
      await store.put({ ...letter, id: `${letter.id}/again` }, call)
    })

    expect(await complaintsWith(twice)).toContain('letter twice')
  })

  test('finds a dead letter with another value', async () => {
    const trimmed = storing(
      (store) => (letter, call) =>
        store.put({ ...letter, record: { ...letter.record, value: new Uint8Array() } }, call),
    )

    expect(await complaintsWith(trimmed)).toContain('not as written')
  })
})
