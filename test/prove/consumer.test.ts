/** Each scenario of the consumer bites: with a bug put between the consumer and its world, one of a few plays shows it. */
import { describe, expect, test } from 'vitest'
import { shortOf } from '../../prove/consumer.ts'
import { budgets } from '../../prove/consumer/budgets.ts'
import { cutAnswers } from '../../prove/consumer/cut-answers.ts'
import { deadlines } from '../../prove/consumer/deadlines.ts'
import { deaths } from '../../prove/consumer/deaths.ts'
import { failurePlans } from '../../prove/consumer/failure-plans.ts'
import { isolates } from '../../prove/consumer/isolates.ts'
import { overlaps } from '../../prove/consumer/overlaps.ts'
import { poison } from '../../prove/consumer/poison.ts'
import { repeats } from '../../prove/consumer/repeats.ts'
import type { Bugs, Scenario } from '../../prove/consumer/scenario.ts'
import { storeOutages } from '../../prove/consumer/store-outages.ts'
import { steps } from '../../prove/consumer/world.ts'
import { ticks } from '../../prove/consumer/ticks.ts'
import type { PollResult } from '../../src/broker.ts'
import { KedgeError } from '../../src/errors.ts'
import type { TopicPartitionOffset } from '../../src/record.ts'
import { withCalls } from '../support/consumer.ts'

/** What a few plays complain of. Ends as soon as one does. */
async function complaintsOf(scenario: Scenario, bugs: Bugs, plays = 12, first = 0): Promise<string> {
  for (let index = first; index < first + plays; index++) {
    const { violations } = await scenario.play(1_000_000 + index, index, bugs)
    if (violations.length > 0) return violations.join('\n')
  }
  return ''
}

/** Commits one record more than a run asks for, where there is one. */
const commitsAhead: Bugs = {
  broker: (broker) =>
    withCalls(broker, {
      commit: async (group, offsets, options, call) => {
        if (offsets === 'polled') return await broker.commit(group, offsets, options, call)
        const ends = await broker.offsets(offsets, 'latest')
        const further = offsets.map((entry, index) => ({
          ...entry,
          offset: Math.min(entry.offset + 1, ends[index]?.offset ?? entry.offset),
        }))
        await broker.commit(group, further, options, call)
      },
    }),
}

/** A poll moves the position because an answer was sent, whether it arrived or not. */
function movesOnAnswer(): Bugs {
  return {
    broker: (broker) => {
      const sent = new Map<string, number>()
      return withCalls(broker, {
        poll: async (request, call) => {
          const answer: PollResult = await broker.poll(request, call)
          const records = answer.records.filter(({ partition, offset }) => offset >= (sent.get(`${partition}`) ?? 0))
          for (const { partition, offset } of records) sent.set(`${partition}`, offset + 1)
          return { ...answer, records }
        },
      })
    },
  }
}

/** Every run has an instance of its own, so that none excludes another. */
const noClaims: Bugs = {
  broker: (broker) =>
    withCalls(broker, {
      poll: (request, call) => {
        const { runId = 'x' } = request.run ?? {}
        return broker.poll({ ...request, group: { ...request.group, groupInstanceId: runId } }, call)
      },
      commit: (group, offsets, { runId = 'x', ...options } = {}, call) =>
        broker.commit({ ...group, groupInstanceId: runId }, offsets, { ...options, runId }, call),
    }),
}

/** A commit of a run without the claim is taken. */
const takesStaleCommits: Bugs = {
  broker: (broker) =>
    withCalls(broker, {
      commit: async (group, offsets, options, call) => {
        try {
          await broker.commit(group, offsets, options, call)
        } catch (error) {
          if (!(error instanceof KedgeError) || error.code !== 'CLAIM_LOST') throw error
          await broker.commit({ ...group, groupInstanceId: 'nobody' }, offsets)
        }
      },
    }),
}

/** A letter is said to be stored before it is. */
const forgetsLetters: Bugs = { letters: (store) => ({ ...store, put: () => Promise.resolve() }) }

describe('a scenario of the consumer finds', () => {
  test('a commit that is ahead when a run is killed', async () => {
    expect(await complaintsOf(deaths, commitsAhead)).toContain('is committed and not handled')
  })

  test('a position that moves because an answer was sent', async () => {
    expect(await complaintsOf(cutAnswers, movesOnAnswer())).toMatch(/was lost with an answer|not done|lost/)
  })

  test('two runs that work on one instance', async () => {
    expect(await complaintsOf(overlaps, noClaims)).toContain('of two runs 0 were refused')
  })

  test('a commit of a fenced run that is taken', async () => {
    expect(await complaintsOf(overlaps, takesStaleCommits)).toMatch(/while run-\d+ has the claim|stale commit/)
  })

  test('a dead letter whose bytes were changed', async () => {
    const trimmed: Bugs = {
      letters: (store) => ({
        ...store,
        put: (letter, call) => store.put({ ...letter, record: { ...letter.record, headers: [] } }, call),
      }),
    }

    expect(await complaintsOf(poison, trimmed)).toContain('as written')
  })

  test('poison that a partition does not get past', async () => {
    const refuses: Bugs = {
      broker: (broker) => withCalls(broker, { commit: () => Promise.resolve() }),
    }

    expect(await complaintsOf(poison, refuses, 1)).toContain('the partition is not past')
  })

  test('a record that ends process after process', async () => {
    const forgets: Bugs = {
      broker: (broker) =>
        withCalls(broker, {
          poll: async (request, call) => {
            const { formerRunLapsed: _, ...answer } = await broker.poll(request, call)
            return answer
          },
        }),
    }

    expect(await complaintsOf(poison, forgets, 1, 8)).toContain('processes died of one record')
    expect(await complaintsOf(poison, {}, 1, 8)).toBe('')
  })

  test('handlers that begin out of order', async () => {
    expect(await complaintsOf(failurePlans, { ordering: 'none' })).toContain('is open, and the order is by')
  })

  test('batches that begin out of order', async () => {
    expect(await complaintsOf(failurePlans, { ordering: 'none' }, 1, 9)).toContain(
      'is open, and the order is by partition',
    )
  })

  test('a commit that is ahead when a run dies in the middle of a batch', async () => {
    const at = steps.indexOf('record of a batch is done')

    expect(await complaintsOf(deaths, commitsAhead, 1, at)).toContain('is committed and not handled')
  })

  test('offsets that pass a record whose letter is not there', async () => {
    expect(await complaintsOf(storeOutages, forgetsLetters)).toContain('letter lost')
  })

  test('a record with two letters', async () => {
    const twice: Bugs = {
      letters: (store) => ({
        ...store,
        put: async (letter, call) => {
          await store.put(letter, call)
          await store.put({ ...letter, id: `${letter.id}/again` }, call)
        },
      }),
    }

    expect(await complaintsOf(storeOutages, twice)).toContain('two letters')
  })

  test('a run that takes work until its deadline', async () => {
    const noMargin: Bugs = { run: (options) => ({ ...options, budget: { ...options.budget, marginMs: 0 } }) }

    expect(await complaintsOf(deadlines, noMargin)).toContain('a handler began within')
  })

  test('a run of which more than a batch comes again', async () => {
    let commits = 0
    const seldom: Bugs = {
      broker: (broker) =>
        withCalls(broker, {
          commit: async (group, offsets, options, call) => {
            commits += 1
            if (commits % 40 === 0) await broker.commit(group, offsets, options, call)
          },
        }),
    }

    expect(await complaintsOf(deadlines, seldom)).toMatch(/records of run-\d+ came again/)
  })
})

describe('a scenario of the platform finds', () => {
  test('a redirect that is followed, and costs requests that nobody counts', async () => {
    const follows: Bugs = { fetch: (fetch) => async (url, init) => await fetch(url, { ...init, redirect: 'follow' }) }

    expect(await complaintsOf(budgets, follows, 3)).toMatch(/it made \d+ requests and says/)
  })

  test('a run that makes as many requests as it likes', async () => {
    const unlimited: Bugs = { run: (options) => ({ ...options, budget: {} }) }

    expect(await complaintsOf(budgets, unlimited, 1)).toMatch(/requests were more than 50/)
  })

  test('an idempotency store that forgets what was done', async () => {
    const forgetful: Bugs = {
      idempotency: (store) => ({
        ...store,
        complete: (key, owner, _outcome, _keep, call) => store.abandon(key, owner, call),
      }),
    }

    expect(await complaintsOf(repeats, forgetful)).toMatch(/had its effect \d times/)
  })

  test('a store that gives one lock to two', async () => {
    const shared: Bugs = {
      idempotency: (store) => ({
        ...store,
        begin: async (...request) => {
          const result = await store.begin(...request)
          return result.kind === 'in-progress' ? { kind: 'started' } : result
        },
      }),
    }

    expect(await complaintsOf(repeats, shared)).toMatch(/had its effect \d times/)
  })

  test('a run whose deadline goes by the time that its tick was for', async () => {
    const byTick: Bugs = { run: (options, scheduledMs) => ({ ...options, deadlineMs: scheduledMs + 50_000 }) }

    expect(await complaintsOf(ticks, byTick, 2)).toContain('found a backlog and read nothing')
  })

  test('ticks that are dropped when a later one came before', async () => {
    let newest = 0
    const inOrder: Bugs = {
      run: (options, scheduledMs) => {
        const isOld = scheduledMs < newest
        newest = Math.max(newest, scheduledMs)
        return isOld ? { ...options, deadlineMs: 0 } : options
      },
    }

    expect(await complaintsOf(ticks, inOrder, 2)).toContain('found a backlog and read nothing')
  })

  test('attempts and waits that are not stored', async () => {
    const forgets: Bugs = {
      isolate: (broker) =>
        withCalls(broker, {
          commit: (group, offsets, options, call) => {
            if (offsets === 'polled') return broker.commit(group, offsets, options, call)
            const plain = offsets.map(({ topic, partition, offset }) => ({ topic, partition, offset }))
            return broker.commit(group, plain, options, call)
          },
        }),
    }

    expect(await complaintsOf(isolates, forgets, 1)).toMatch(/had \d attempts, and then its 1|before its wait was over/)
  }, 60_000)

  test('progress that is kept in the memory of an isolate', async () => {
    const remembers: Bugs = {
      isolate: (broker) => {
        const memory = new Map<string, string>()
        const keyOf = ({ topic, partition, offset }: TopicPartitionOffset): string => `${topic} ${partition} ${offset}`
        return withCalls(broker, {
          commit: (group, offsets, options, call) => {
            if (offsets === 'polled') return broker.commit(group, offsets, options, call)
            const plain = offsets.map(({ metadata, ...entry }) => {
              memory.set(keyOf(entry), metadata ?? '')
              return entry
            })
            return broker.commit(group, plain, options, call)
          },
          committed: async (groupId, partitions, call) => {
            const committed = await broker.committed(groupId, partitions, call)
            return committed.map((entry) => ({ ...entry, metadata: memory.get(keyOf(entry)) ?? null }))
          },
        })
      },
    }

    expect(await complaintsOf(isolates, remembers, 1)).toContain('in a process that goes on')
  }, 60_000)
})

describe('too few tries', () => {
  test('are a failure: fewer than needed in the full form, none in the quick one', () => {
    expect(shortOf({ kills: 3 }, { kills: 2 }, false)).toEqual(['kills'])
    expect(shortOf({ kills: 3 }, { kills: 3 }, false)).toEqual([])
    expect(shortOf({ kills: 3, cuts: 1 }, { kills: 1 }, true)).toEqual(['cuts'])
  })
})
