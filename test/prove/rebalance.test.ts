/** The proof of rebalances bites: with a bug in the gateway, its scenarios find it; and its judges find what is wrong in a journal. */
import { appendFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { temporaryFolder } from '../../prove/embedded-log/folder.ts'
import type { GatewayProcess } from '../../prove/gateway-process.ts'
import { cameAgain, judgeAgain } from '../../prove/rebalance/came-again.ts'
import { judgeClaims } from '../../prove/rebalance/claim-judge.ts'
import { joinsAndLeaves } from '../../prove/rebalance/joins-and-leaves.ts'
import { type Entry, historyOf, Journal, JournalReader } from '../../prove/rebalance/journal.ts'
import type { Noted } from '../../prove/history/noted-broker.ts'
import { overlaps } from '../../prove/rebalance/overlaps.ts'
import { restarts } from '../../prove/rebalance/restarts.ts'
import type { Scenario } from '../../prove/rebalance/scenario.ts'
import type { Broker, OffsetCommit } from '../../src/broker.ts'
import { logBroker } from '../../src/brokers/log.ts'
import { BrokerError, KedgeError } from '../../src/errors.ts'
import type { GatewayServer } from '../../src/runtimes/node-gateway.ts'
import { seeded } from '../support/chaos.ts'
import { withCalls } from '../support/consumer.ts'
import { startGateway } from '../support/gateway.ts'
import { until } from '../support/until.ts'

let folder: ReturnType<typeof temporaryFolder>
beforeEach(() => {
  folder = temporaryFolder('rebalance-test')
})
afterEach(() => folder[Symbol.dispose]())

/** What is wrong with a gateway, in the n-th of its lives, counted from 0. */
type Bug = (broker: Broker, life: number) => Partial<Broker>

/** A gateway in this process that has a bug, and is killed and started as one in a process of its own. */
function gatewayWith(bug: Bug): GatewayProcess {
  let server: GatewayServer | undefined
  let broker: Broker | undefined
  let lives = 0
  let url = ''
  const kill = async (): Promise<void> => {
    await server?.close()
    await broker?.close()
  }
  return {
    get url() {
      return url
    },
    ended: undefined,
    async start() {
      broker = logBroker({ dir: join(folder.path, 'log') })
      const port = url === '' ? 0 : Number(new URL(url).port)
      server = await startGateway(withCalls(broker, bug(broker, lives++)), { port, drainMs: 100 })
      url = server.url
      // Connections of the life before have to be found out.
      await until(
        async () =>
          await fetch(`${url}/readyz`).then(
            ({ ok }) => ok,
            () => false,
          ),
      )
    },
    kill,
    [Symbol.asyncDispose]: kill,
  }
}

async function play({ play: playIt }: Scenario, strikes: number, bug: Bug = () => ({})): Promise<string> {
  await using gateway = gatewayWith(bug)
  await gateway.start()
  const stop = new AbortController().signal
  const { violations } = await playIt({ gateway, folder: folder.path, strikes, random: seeded(1), stop })
  return violations.join('\n')
}

/** Does something once for each group, when it is polled for the first time in a life of the gateway. */
function firstPoll(broker: Broker, does: (groupId: string, topic: string) => Promise<void>): Partial<Broker> {
  const met = new Set<string>()
  return {
    poll: async (request, call) => {
      const { groupId } = request.group
      const [topic = ''] = request.topics
      if (!met.has(groupId)) await does(groupId, topic)
      met.add(groupId)
      return await broker.poll(request, call)
    },
  }
}

async function partitionsOf(broker: Broker, topic: string): Promise<{ topic: string; partition: number }[]> {
  const topics = await broker.topics()
  const count = topics.find((one) => one.topic === topic)?.partitions ?? 0
  return Array.from({ length: count }, (_, partition) => ({ topic, partition }))
}

describe('groups after restarts and rebalances', () => {
  test('go on where they have committed', async () => {
    expect(await play(restarts, 6)).toBe('')
  })

  test('are caught going on at the end after a restart', async () => {
    const resets: Bug = (broker, life) =>
      firstPoll(broker, async (groupId, topic) => {
        if (life === 0) return
        const ends = await broker.offsets(await partitionsOf(broker, topic), 'latest')
        await broker.commit({ groupId, groupInstanceId: 'nobody' }, ends)
      })

    expect(await play(restarts, 1, resets)).toContain('lost:')
  })

  test('are caught going on at the beginning after a rebalance', async () => {
    const forgets: Bug = (broker) => ({
      poll: async (request, call) => {
        if (request.group.groupInstanceId === 'c') {
          const beginnings = await broker.offsets(await partitionsOf(broker, request.topics[0] ?? ''), 'earliest')
          await broker.commit({ ...request.group, groupInstanceId: 'nobody' }, beginnings)
        }
        return await broker.poll(request, call)
      },
    })

    const found = await play(restarts, 2, forgets)

    expect(found).toContain('after join c went on in')
    expect(found).toContain('came again:')
  })

  test('are caught holding one partition in the same generation', async () => {
    const shares: Bug = (broker) => ({
      poll: async (request, call) => {
        const result = await broker.poll(request, call)
        return { ...result, assignment: await partitionsOf(broker, request.topics[0] ?? '') }
      },
    })

    expect(await play(restarts, 1, shares)).toContain('two holders:')
  })

  test('are caught having no offset any more', async () => {
    const forgets: Bug = (broker, life) =>
      firstPoll(broker, async () => {
        if (life > 0) throw new BrokerError('NO_COMMITTED_OFFSET', 'nothing is committed')
      })

    await expect(play(restarts, 1, forgets)).rejects.toThrow('nothing is committed')
  })
})

describe('instances in processes of their own', () => {
  test('are caught losing commits', async () => {
    const storesLess: Bug = (broker) => ({
      commit: async (group, offsets, options, call) => {
        const less = (entry: OffsetCommit): OffsetCommit => ({ ...entry, offset: Math.max(0, entry.offset - 1) })
        await broker.commit(group, offsets === 'polled' ? offsets : offsets.map(less), options, call)
      },
    })

    expect(await play(joinsAndLeaves, 0, storesLess)).toContain('commit lost:')
  }, 120_000)

  test('are caught working side by side, and committing after they were overtaken', async () => {
    const lets: Bug = (broker) => {
      const runs = new Map<string, string>()
      return {
        poll: async (request, call) => {
          const { groupInstanceId } = request.group
          await broker.release(request.group, runs.get(groupInstanceId) ?? '')
          runs.set(groupInstanceId, request.run?.runId ?? '')
          return await broker.poll(request, call)
        },
        commit: async (group, offsets, options, call) => {
          try {
            await broker.commit(group, offsets, options, call)
          } catch (error) {
            if (!(error instanceof KedgeError) || error.code !== 'CLAIM_LOST') throw error
            await broker.commit({ ...group, groupInstanceId: 'nobody' }, offsets)
          }
        },
      }
    }

    const found = await play(overlaps, 2, lets)

    expect(found).toMatch(/was granted the claim on . \d+ ms before/)
    expect(found).toMatch(/a commit of \S+ was taken while \S+ had the claim/)
  }, 120_000)
})

/** Entries of one process, a millisecond apart unless an event says when. */
function entriesOf(...events: readonly (readonly [by: string, event: Noted, atMs?: number])[]): Entry[] {
  return events.map(([by, event, atMs], index) => ({ by, atMs: atMs ?? index, event }))
}

const polled = (call: number, run: string, generationId = 1, assignment: readonly string[] = ['t/0']): Noted => ({
  type: 'polled',
  call,
  instance: 'i',
  run,
  generationId,
  assignment,
  records: [],
  overMs: 0,
})
const asked = (call: number, run: string): Noted => ({ type: 'asked', call, instance: 'i', run })
const handled = (offset: number): Noted => ({ type: 'handled', place: 't/0', offset })

describe('the judge of what came again', () => {
  test('counts it for the process that has the partition since, whichever handles it', () => {
    const entries = entriesOf(
      ['p', polled(1, 'r')],
      ['p', handled(0)],
      ['p', handled(1)],
      ['q', polled(1, 's', 2)],
      ['q', handled(0)],
      ['p', handled(2)],
      ['p', polled(2, 'r', 1)],
      ['q', handled(2)],
      ['q', handled(3)],
    )

    expect(cameAgain(entries)).toEqual([{ by: 'q', moves: 1, records: 2 }])
  })

  test('finds more than a run has in hand, and more than a batch over all', () => {
    const few = Array.from({ length: 9 }, (_, index) => ({ by: `p${index}`, moves: 1, records: 40 }))

    expect(judgeAgain([...few, { by: 'q', moves: 1, records: 90 }]).violations).toEqual([])
    expect(judgeAgain([...few, { by: 'q', moves: 1, records: 109 }]).violations).toEqual([
      '109 records came again when q took 1 partitions over',
    ])
    expect(judgeAgain([{ by: 'q', moves: 2, records: 101 }]).violations).toEqual([
      '101 records came again when 2 partitions moved',
    ])
  })
})

describe('the judge of claims', () => {
  const TTL_MS = 1_000

  test('has nothing against a run that comes when the claim has lapsed, or was given back', () => {
    const { violations, handovers, lapses } = judgeClaims(
      entriesOf(
        ['p', asked(1, 'r'), 0],
        ['p', polled(1, 'r'), 10],
        ['q', asked(1, 's'), 900],
        ['q', polled(1, 's'), 1_001],
        ['q', { type: 'releasing', instance: 'i', run: 's' }, 1_010],
        ['p', asked(2, 'u'), 1_011],
        ['p', polled(2, 'u'), 1_012],
      ),
      TTL_MS,
      300,
    )

    expect({ violations, handovers, lapses }).toEqual({ violations: [], handovers: 2, lapses: 1 })
  })

  test('has nothing against an answer that lay with a process which stood still while its claim lapsed', () => {
    const { violations, handovers } = judgeClaims(
      entriesOf(
        ['p', asked(1, 'r'), 0],
        ['p', polled(1, 'r'), 10],
        ['p', asked(2, 'r'), 20],
        ['q', asked(1, 's'), 1_100],
        ['q', polled(1, 's'), 1_101],
        ['p', polled(2, 'r'), 1_110],
      ),
      TTL_MS,
      300,
    )

    expect({ violations, handovers }).toEqual({ violations: [], handovers: 1 })
  })

  test('finds a run that is let in while the claim of another lives', () => {
    const { violations } = judgeClaims(
      entriesOf(
        ['p', asked(1, 'r'), 0],
        ['p', polled(1, 'r'), 10],
        ['q', asked(1, 's'), 200],
        ['q', polled(1, 's'), 210],
      ),
      TTL_MS,
      300,
    )

    expect(violations).toEqual(['s was granted the claim on i 790 ms before that of r could lapse'])
  })

  test('finds a commit that is taken while another run has the claim', () => {
    const committed = (atMs: number): string[] => {
      const offsets = [{ place: 't/0', offset: 1 }]
      const entries = entriesOf(
        ['p', asked(1, 'r'), 0],
        ['p', polled(1, 'r'), 1],
        ['q', asked(1, 's'), 1_100],
        ['q', polled(1, 's'), 1_101],
        ['p', { type: 'committing', call: 2, instance: 'i', run: 'r', offsets }, atMs],
        ['p', { type: 'committed', call: 2, instance: 'i', run: 'r', generationId: 1, offsets }, atMs + 5],
      )
      return [...judgeClaims(entries, TTL_MS, 300).violations]
    }

    expect(committed(1_200)).toEqual(['a commit of r was taken while s had the claim on i'])
    // The claim may have lapsed by then, and come back to the run.
    expect(committed(2_090)).toEqual([])
  })

  test('finds refusals that are not at once', () => {
    const refused = (call: number): Noted => ({ type: 'failed', kind: 'poll', call, code: 'CLAIM_HELD' })
    const { violations, refusals } = judgeClaims(
      entriesOf(['q', asked(1, 's'), 0], ['q', refused(1), 310], ['q', asked(2, 's'), 400], ['q', refused(2), 402]),
      TTL_MS,
      300,
    )

    expect(refusals).toBe(2)
    expect(violations).toEqual([
      'half of the refusals took 310 ms or more',
      '1 of 2 refusals came as late as an empty answer',
    ])
  })

  test('counts commits that are refused after another run has taken over', () => {
    const committing: Noted = { type: 'committing', call: 2, instance: 'i', run: 'r', offsets: [] }
    const refused: Noted = { type: 'failed', kind: 'commit', call: 2, code: 'CLAIM_LOST' }
    const { fencedCommits } = judgeClaims(
      entriesOf(
        ['p', asked(1, 'r'), 0],
        ['p', polled(1, 'r'), 1],
        ['q', asked(1, 's'), 1_100],
        ['q', polled(1, 's'), 1_101],
        ['p', committing, 1_102],
        ['p', refused, 1_103],
      ),
      TTL_MS,
      300,
    )

    expect(fencedCommits).toBe(1)
  })
})

describe('a journal', () => {
  test('keeps the events of all processes in order, but for the last one of a killed process', () => {
    const path = join(folder.path, 'journal')
    using reader = new JournalReader(path)
    using one = new Journal(path, 'one')
    using other = new Journal(path, 'other')
    one.note({ type: 'asked', call: one.nextCall() })
    other.note({ type: 'asked', call: other.nextCall() })
    reader.read()
    appendFileSync(path, '\n{"by":"killed","event":{"type":"hand')
    one.note(handled(7))

    expect(reader.read().map(({ by, event }) => [by, event.type])).toEqual([['one', 'handled']])
    expect(historyOf(reader.entries)).toEqual([{ type: 'asked', call: 1 }, { type: 'asked', call: 2 }, handled(7)])
  })
})
