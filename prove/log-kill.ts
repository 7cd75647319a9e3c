/**
 * `npm run prove -- log-kill`: the gateway over the embedded log is killed a hundred times while eight producers send it a
 * thousand records a second. What was acknowledged is there, at its offset, in its producer's order; no offset has two values.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { restBroker } from '../src/brokers/rest.ts'
import { seeded } from '../test/support/chaos.ts'
import { temporaryFolder } from './embedded-log/folder.ts'
import { Producers } from './embedded-log/producers.ts'
import { storedItems } from './embedded-log/stored.ts'
import { gatewayProcess } from './gateway-process.ts'
import { check } from './history/check.ts'
import type { HistoryEvent } from './history/history.ts'
import type { Proof, ProofOptions, ProofResult } from './proof.ts'

const TOPIC = 'kill'
const PARTITIONS = 4
const PRODUCERS = 8
const RECORDS_PER_SECOND = 1_000
const SHOWN = 10
/** Fewer acknowledged records than this for each kill show nothing. */
const LEAST_PER_KILL = 50

/** A gateway that dies under load. */
export const logKill: Proof = {
  summary: 'the gateway over the embedded log is killed again and again under load; nothing acknowledged is lost',
  prove,
}

async function prove({ seed, quick, say, stop }: ProofOptions): Promise<ProofResult> {
  const random = seeded(seed)
  const wanted = quick ? 4 : 100
  using folder = temporaryFolder('kill')
  const topics = `${TOPIC}:${PARTITIONS}`
  await using gateway = await gatewayProcess({ KEDGE_BROKER: 'log', KEDGE_DATA: folder.path, KEDGE_TOPICS: topics })
  await gateway.start()
  const history: HistoryEvent[] = []
  const producers = new Producers({
    url: gateway.url,
    topic: TOPIC,
    producers: PRODUCERS,
    recordsPerSecond: RECORDS_PER_SECOND,
    hasKey: (index) => index % 2 === 0,
    random,
    note: (event) => void history.push(event),
  })
  const working = producers.work()
  // Reads what is there, as a reader does who comes between two kills.
  const look = async (): Promise<void> => {
    const stored = await storedItems(restBroker({ url: gateway.url }), TOPIC, PARTITIONS)
    for (const [place, records] of stored) history.push({ type: 'read', place, from: 0, records })
  }
  let kills = 0
  let servedMs = 0
  for (; kills < wanted && !stop.aborted; kills++) {
    const startedAt = performance.now()
    await sleep(200 + 700 * random())
    await gateway.kill()
    servedMs += performance.now() - startedAt
    await gateway.start()
    // What is read between two kills has to be the same in the end.
    if (kills % 10 === 0) await look()
  }
  producers.stop()
  await working
  const broker = restBroker({ url: gateway.url })
  const log = await storedItems(broker, TOPIC, PARTITIONS)
  const { violations, figures } = check(history, { log }, { mostOverMs: 0, isConsumed: false })
  for (const { kind, detail } of violations.slice(0, SHOWN)) say(`  ${kind}: ${detail}`)
  if (gateway.ended !== undefined) say(`  the gateway ended by itself: ${gateway.ended}`)
  const isVacuous = figures.acknowledged < kills * LEAST_PER_KILL
  if (isVacuous) say(`  nothing was shown: ${figures.acknowledged} records were acknowledged in ${kills} lives`)
  return {
    runs: kills,
    violations: violations.length + (gateway.ended === undefined ? 0 : 1) + (isVacuous ? 1 : 0),
    figures: {
      kills,
      acknowledged: figures.acknowledged,
      unknown: Object.values(figures.failures).reduce((sum, count) => sum + count, 0),
      stored: [...log.values()].reduce((sum, items) => sum + items.length, 0),
      acknowledgedPerSecondServed: Math.round((figures.acknowledged * 1_000) / servedMs),
    },
  }
}
