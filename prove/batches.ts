/**
 * `npm run prove -- batches`: a thousand mixed batches over the gateway, over the log in memory and on disk. What can be read after
 * each is what its answer reported stored, at those offsets; results stand at the index of their record; and no answer with a
 * failure in it is a plain 200.
 */
import type { Broker } from '../src/broker.ts'
import { logBroker } from '../src/brokers/log.ts'
import { memoryBroker } from '../src/brokers/memory.ts'
import { credentialFor } from '../src/gateway/credentials.ts'
import type { ConsumerRecord } from '../src/record.ts'
import { textOf } from '../src/record.ts'
import { seeded } from '../test/support/chaos.ts'
import { startGateway } from '../test/support/gateway.ts'
import { call, type HttpAnswer } from '../test/support/http.ts'
import { type Batch, batchOf, good, type Item, refusing, SMALL_BYTES, TOPICS } from './batches/batch.ts'
import { temporaryFolder } from './embedded-log/folder.ts'
import type { Proof, ProofOptions, ProofResult } from './proof.ts'

const SHOWN = 10
const authorization = `Basic ${Buffer.from('producer:of batches').toString('base64')}`

/** Batches in which some records cannot be taken. */
export const batches: Proof = {
  summary: 'mixed batches over the gateway; what is readable is what was reported stored, index by index',
  prove,
}

async function prove({ seed, quick, say, stop }: ProofOptions): Promise<ProofResult> {
  const count = quick ? 60 : 1_000
  using folder = temporaryFolder('batches')
  const brokers = { memory: () => memoryBroker(), log: () => logBroker({ dir: folder.path }) }
  const counts: Record<string, number> = {}
  const found: string[] = []
  let runs = 0
  for (const [name, open] of Object.entries(brokers)) {
    await using broker = open()
    const credential = await credentialFor('producer', 'of batches', [
      { verbs: ['produce', 'consume'], topics: ['small', 'blue', 'missing'], groups: ['*'] },
    ])
    await using gateway = await startGateway(broker, { credentials: [credential] })
    await broker.createTopic({ topic: 'small', partitions: TOPICS.small, maxRecordBytes: SMALL_BYTES })
    await broker.createTopic({ topic: 'blue', partitions: TOPICS.blue })
    await broker.createTopic({ topic: 'secret' })
    const trial = new Trial(broker, gateway.url, counts)
    const random = seeded(seed)
    for (let number = 0; number < count && !stop.aborted; number++) {
      const batch = batchOf(number, random)
      for (const line of await trial.send(batch)) found.push(`${name}, batch ${number}: ${line}`)
      runs += 1
    }
  }
  for (const line of found.slice(0, SHOWN)) say(`  ${line}`)
  const missing = ['answers 200', 'answers 207', 'answers 403', 'answers 400', 'answers 404', 'answers 413', 'replays']
  const notShown = missing.filter((name) => (counts[name] ?? 0) === 0)
  for (const name of notShown) say(`  nothing was shown: there were no ${name}`)
  return { runs, violations: found.length + notShown.length, figures: { counts } }
}

interface Result {
  readonly topic?: string
  readonly partition?: number
  readonly offset?: number
  readonly result?: string
  readonly error?: string
  readonly status?: number
}

class Trial {
  readonly #broker: Broker
  readonly #url: string
  readonly #counts: Record<string, number>
  /** The log end of each partition, as far as it was read. */
  readonly #ends = new Map<string, number>()

  constructor(broker: Broker, url: string, counts: Record<string, number>) {
    this.#broker = broker
    this.#url = url
    this.#counts = counts
  }

  /** Sends a batch and gives what is wrong with its answer, or with what can be read then. */
  async send(batch: Batch): Promise<string[]> {
    const answer = await this.#produce(batch)
    this.#count(`answers ${answer.status}`)
    const stored = await this.#readNew()
    const problems = this.#judge(batch, answer, stored)
    if (batch.idempotencyKey === undefined || answer.status >= 300) return problems
    const again = await this.#produce(batch)
    this.#count('replays')
    if (again.status !== answer.status || again.text !== answer.text) {
      problems.push(`its replay was answered with ${again.status} ${again.text}`)
    }
    const twice = await this.#readNew()
    if (twice.length > 0) problems.push(`its replay stored ${twice.length} records`)
    return problems
  }

  #judge({ items, isEach }: Batch, answer: HttpAnswer, stored: readonly ConsumerRecord[]): string[] {
    const isRefused = items.some(({ kind }) => refusing.has(kind))
    const isGood = items.every(({ kind }) => good.has(kind))
    const isWhole = isRefused || (!isEach && !isGood)
    if (isWhole) {
      const problems = answer.status < 400 ? [`it was answered with ${answer.status}`] : []
      return stored.length === 0 ? problems : [...problems, `${stored.length} records of a refused batch are there`]
    }
    const expected = isGood ? 200 : 207
    if (answer.status !== expected) return [`it was answered with ${answer.status} and not ${expected}: ${answer.text}`]
    return this.#judgeEach(items, answer.json as readonly Result[], stored)
  }

  #judgeEach(items: readonly Item[], results: readonly Result[], stored: readonly ConsumerRecord[]): string[] {
    if (results.length !== items.length) return [`${items.length} records have ${results.length} results`]
    const problems: string[] = []
    const there = new Map(stored.map((record) => [`${record.topic}/${record.partition}@${record.offset}`, record]))
    for (const [index, item] of items.entries()) {
      const result = results[index] ?? {}
      const { topic, partition, offset, status = 0 } = result
      if (!good.has(item.kind)) {
        this.#count(item.kind)
        if (status < 400 || result.error === undefined || offset !== undefined) {
          problems.push(`record ${index} (${item.kind}) has the result ${JSON.stringify(result)}`)
        }
        continue
      }
      const key = `${topic}/${partition}@${offset}`
      const record = there.get(key)
      if (record === undefined) problems.push(`record ${index} is reported at ${key}, where nothing new is`)
      else if (!isAs(record, item)) problems.push(`record ${index} is reported at ${key}, where another is`)
      if (!there.delete(key)) problems.push(`record ${index} shares ${key} with another`)
      this.#count('stored')
    }
    for (const key of there.keys()) problems.push(`${key} is there and was not reported`)
    return problems
  }

  async #produce({ items, isEach, isBase64, idempotencyKey, path }: Batch): Promise<HttpAnswer> {
    return await call(this.#url, `POST ${path}`, {
      body: items.map(({ body }) => body),
      keepAlive: true,
      headers: {
        authorization,
        'content-type': 'application/json',
        ...(isEach ? { 'Kedge-Results': 'each' } : {}),
        ...(isBase64 ? { 'Kedge-Encoding': 'base64' } : {}),
        ...(idempotencyKey === undefined ? {} : { 'Idempotency-Key': idempotencyKey }),
      },
    })
  }

  /** Everything that came since the last time, the forbidden topic included. */
  async #readNew(): Promise<ConsumerRecord[]> {
    const found: ConsumerRecord[] = []
    for (const [topic, partitions] of Object.entries({ ...TOPICS, secret: 1 })) {
      for (let partition = 0; partition < partitions; partition++) {
        const key = `${topic}/${partition}`
        const offset = this.#ends.get(key) ?? 0
        const limits = { maxWaitMs: 0, maxRecords: 1_000, maxBytes: 1 << 24 }
        const records = await this.#broker.fetch([{ topic, partition, offset }], limits)
        this.#ends.set(key, offset + records.length)
        found.push(...records)
      }
    }
    return found
  }

  #count(what: string): void {
    this.#counts[what] = (this.#counts[what] ?? 0) + 1
  }
}

function isAs(record: ConsumerRecord, { body, value }: Item): boolean {
  if (value === null) return record.value === null
  if (record.value === null || textOf(record.value) !== value) return false
  return body['topic'] === undefined ? record.topic === 'blue' : record.topic === body['topic']
}
