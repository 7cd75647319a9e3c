/**
 * Among a thousand records one can never be handled: its bytes are not JSON, its schema refuses it, its handler throws, rejects,
 * hangs, overflows the stack or ends its process. The others are handled; it becomes a dead letter, byte for byte; its partition gets past it.
 */
import { isDeepStrictEqual } from 'node:util'
import { partitionKey } from '../../src/record.ts'
import type { Fate } from '../run-sim/records.ts'
import { TOPIC } from '../run-sim/records.ts'
import type { Scenario } from './scenario.ts'
import { GROUP, World } from './world.ts'

const RECORDS = 1_000
const PLAYS = 100
const kinds: readonly Fate[] = [
  'not JSON',
  'wrong shape',
  'too deep',
  'throws',
  'rejects',
  'hangs',
  'overflows',
  'no route',
  'ends its process',
]
/** After so many it must be found: one without a name, and one with. */
const DEATHS = 2
const MAX_ATTEMPTS = 3
const ATTEMPT_MS = 500
const LONGEST_BACKOFF_MS = 200
const TICK_MS = 10_000
const WORST_MS = MAX_ATTEMPTS * (ATTEMPT_MS + LONGEST_BACKOFF_MS) + TICK_MS
const LOOK_MS = 100

/** Poison of each kind. */
export const poison: Scenario = {
  promise: 'A record that can never be handled becomes a dead letter, byte for byte, and its partition gets past it.',
  plays: { full: kinds.length * PLAYS, quick: kinds.length },
  needs: Object.fromEntries(kinds.map((kind) => [`dead letters: ${kind}`, PLAYS])),
  async play(seed, index, bugs) {
    const kind = kinds[index % kinds.length] ?? 'throws'
    const world = new World({
      seed,
      ordering: (['partition', 'key', 'none'] as const)[Math.floor(index / kinds.length) % 3] ?? 'partition',
      app: {
        attemptTimeoutMs: ATTEMPT_MS,
        retry: { maxAttempts: MAX_ATTEMPTS, initialMs: 50, maxMs: LONGEST_BACKOFF_MS },
      },
      consumer: { maxPollRecords: 100, maxPollWaitMs: 100, commitIntervalMs: 200, claimTtlMs: 5_000 },
      bugs,
    })
    await world.open()
    const at = world.below(RECORDS)
    await world.produce(Array.from({ length: RECORDS }, (_, offset) => (offset === at ? kind : 'good')))
    if (kind === 'ends its process') {
      await world.drain()
      judgeDeaths(world)
      await judgeLetter(world, at, kind)
      return await world.judge()
    }
    await judgeTime(world, at)
    await world.drain()
    await judgeLetter(world, at, kind)
    const others = world.counts['handled'] ?? 0
    if (others !== RECORDS - 1) world.witness.complain(`${others} of ${RECORDS - 1} good records were handled`)
    return await world.judge()
  },
}

/** Its partition is past it within the time of its attempts and waits, and a tick. */
async function judgeTime(world: World, at: number): Promise<void> {
  const running = world.start({ runMs: TICK_MS })
  let passedMs = 0
  for (; passedMs <= WORST_MS; passedMs += LOOK_MS) {
    const [committed] = await world.broker.committed(GROUP, world.places())
    if ((committed?.offset ?? -1) > at) break
    await world.time.advance(LOOK_MS)
  }
  if (passedMs > WORST_MS) world.witness.complain(`the partition is not past ${at} after ${passedMs} ms`)
  await world.finish(running)
}

/** What died had to die, and everything else was handled, some of it more than once. */
function judgeDeaths(world: World): void {
  const deaths = world.started.filter(({ process }) => process.isDead).length
  if (deaths !== DEATHS) world.witness.complain(`${deaths} processes died of one record`)
  const others = new Set(world.started.flatMap(({ process }) => process.done.map(({ offset }) => offset))).size
  if (others !== RECORDS - 1) world.witness.complain(`${others} of ${RECORDS - 1} good records were handled`)
}

async function judgeLetter(world: World, at: number, kind: Fate): Promise<void> {
  const items = await world.allLetters()
  const limits = { maxWaitMs: 0, maxRecords: 1, maxBytes: 1 << 30 }
  const [written] = await world.broker.fetch([{ topic: TOPIC, partition: 0, offset: at }], limits)
  if (items.length === 1 && isDeepStrictEqual(items[0]?.record, written)) world.count(`dead letters: ${kind}`)
  else
    world.witness.complain(
      `${items.length} dead letters, of which none is ${partitionKey({ topic: TOPIC, partition: 0 })}@${at} as written`,
    )
}
