/**
 * `npm run prove -- log-fsync-error`: the k-th sync of the gateway's log fails, for k = 1 to 50. What waits for it is never
 * acknowledged, no later write is taken until the gateway was started again, and after that all that was acknowledged is there.
 *
 * The failure is strace's: it makes the system call return EIO in the process under it. Syncs of the log's files are counted. That
 * of their folder is made fail once by itself: SQLite does not look at its answer, so the log makes one of its own when it opens.
 */
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Broker } from '../src/broker.ts'
import { restBroker } from '../src/brokers/rest.ts'
import { KedgeError } from '../src/errors.ts'
import { bytesOf } from '../src/record.ts'
import { call } from '../test/support/http.ts'
import { requireStrace, temporaryFolder } from './embedded-log/folder.ts'
import { storedItems, valueOf } from './embedded-log/stored.ts'
import { gatewayProcess, type GatewayProcess } from './gateway-process.ts'
import { check } from './history/check.ts'
import type { HistoryEvent, Item } from './history/history.ts'
import type { Proof, ProofOptions, ProofResult } from './proof.ts'

const TOPIC = 'sync'
const PARTITIONS = 2
const LANES = 4
/** Of each lane. Every fourth sync at the latest takes one of them. */
const MOST_RECORDS = 200
const SHOWN = 10

/** A disk that fails to sync. */
export const logFsyncError: Proof = {
  summary: 'the k-th sync of the embedded log fails; nothing is acknowledged that is not stored, and the writer stops',
  prove,
}

async function prove({ quick, say, stop }: ProofOptions): Promise<ProofResult> {
  requireStrace()
  using folder = temporaryFolder('sync')
  const topics = `${TOPIC}:${PARTITIONS}`
  await using gateway = await gatewayProcess({ KEDGE_BROKER: 'log', KEDGE_DATA: folder.path, KEDGE_TOPICS: topics })
  // The topic is made before anything fails.
  await gateway.start()
  await gateway.kill('SIGTERM')
  const trial = new Trial(gateway, folder.path)
  const ks = quick ? [1, 2, 7] : Array.from({ length: 50 }, (_, index) => index + 1)
  let runs = 0
  for (const k of ks) {
    if (stop.aborted) break
    await trial.fail(k)
    runs += 1
  }
  await trial.failFolder(folder.path)
  const log = await trial.stored()
  const { violations, figures } = check(trial.history, { log }, { mostOverMs: 0, isConsumed: false })
  const found = [...trial.complaints, ...violations.map(({ kind, detail }) => `${kind}: ${detail}`)]
  for (const line of found.slice(0, SHOWN)) say(`  ${line}`)
  return {
    runs,
    violations: found.length,
    figures: {
      acknowledged: figures.acknowledged,
      failures: figures.failures,
      refusedLater: trial.refused,
      failedAtStart: trial.failedAtStart,
    },
  }
}

class Trial {
  readonly history: HistoryEvent[] = []
  readonly complaints: string[] = []
  /** Writes that were refused after the failure. */
  refused = 0
  /** How often the failing sync was one of opening the log. */
  failedAtStart = 0
  readonly #gateway: GatewayProcess
  readonly #files: readonly string[]
  readonly #next = new Map<string, number>()

  constructor(gateway: GatewayProcess, folder: string) {
    this.#gateway = gateway
    this.#files = ['kedge.db', 'kedge.db-wal', 'kedge.db-journal'].map((name) => join(folder, name))
  }

  /** One life whose k-th sync fails, and the next one, in which what it left is looked at. */
  async fail(k: number): Promise<void> {
    try {
      await this.#gateway.start(failing(`when=${k}`, this.#files))
    } catch (error) {
      // It has to say so and end; then there is nothing to acknowledge.
      if (!String(error).includes('I/O')) this.complaints.push(`k = ${k}: the gateway did not start: ${String(error)}`)
      this.failedAtStart += 1
      return
    }
    const broker = restBroker({ url: this.#gateway.url })
    const failed = await Promise.all(Array.from({ length: LANES }, (_, lane) => this.#produce(broker, `p${lane}`)))
    if (!failed.some(Boolean)) this.complaints.push(`k = ${k}: no sync failed`)
    await this.#tryLater(k, broker)
    // Half of them are ended as one ends a gateway, which syncs once more; the others die.
    await this.#gateway.kill(k % 2 === 0 ? 'SIGTERM' : 'SIGKILL')
    await this.#gateway.start()
    const items = await storedItems(restBroker({ url: this.#gateway.url }), TOPIC, PARTITIONS)
    for (const [place, records] of items) this.history.push({ type: 'read', place, from: 0, records })
    await this.#gateway.kill(k % 3 === 0 ? 'SIGTERM' : 'SIGKILL')
  }

  /** The folder cannot be synced: the gateway does not start. */
  async failFolder(folder: string): Promise<void> {
    const started = this.#gateway.start(failing('when=1', [folder]))
    const outcome = await started.then(
      () => 'it started',
      (error: unknown) => String(error),
    )
    if (!outcome.includes('EIO')) this.complaints.push(`its folder could not be synced, and ${outcome}`)
    await this.#gateway.kill()
  }

  async stored(): Promise<Map<string, readonly Item[]>> {
    await this.#gateway.start()
    return await storedItems(restBroker({ url: this.#gateway.url }), TOPIC, PARTITIONS)
  }

  /** Sends one after the other until one fails. Says whether one did. */
  async #produce(broker: Broker, lane: string): Promise<boolean> {
    for (let count = 0; count < MOST_RECORDS; count++) {
      const seq = this.#next.get(lane) ?? 0
      this.#next.set(lane, seq + 1)
      const item = { lane, seq, content: valueOf({ lane, seq }, 300) }
      this.history.push({ type: 'sent', ...item })
      try {
        const [result] = await broker.produce([{ topic: TOPIC, key: bytesOf(lane), value: bytesOf(item.content) }])
        if (result === undefined || result instanceof Error) throw result
        const place = `${TOPIC}/${result.partition}`
        this.history.push({ type: 'acknowledged', ...item, place, offset: result.offset })
      } catch (error) {
        const code = error instanceof KedgeError ? error.code : String(error)
        this.history.push({ type: 'failed', kind: 'produce', code })
        if (code !== 'KAFKA_STORAGE_ERROR') this.complaints.push(`a failed sync was told as ${code}`)
        return true
      }
    }
    return false
  }

  /** Every kind of write is refused from then on, though syncs would succeed again; reads are answered. */
  async #tryLater(k: number, broker: Broker): Promise<void> {
    const { url } = this.#gateway
    const group = { groupId: 'g', groupInstanceId: 'i' }
    for (let round = 0; round < 3; round++) {
      const answer = await call(url, `POST /produce/${TOPIC}`, { body: { value: `later ${round}` } })
      this.#expectRefused(k, 'a produce', answer.status)
      const committed = await call(url, 'POST /commit/g/i', { body: { topic: TOPIC, partition: 0, offset: 1 } })
      this.#expectRefused(k, 'a commit', committed.status)
      await broker.createTopic({ topic: `later.${round}` }).then(
        () => this.complaints.push(`k = ${k}: a topic was created after the failure`),
        () => (this.refused += 1),
      )
      await broker.commit(group, [{ topic: TOPIC, partition: 0, offset: 1 }]).then(
        () => this.complaints.push(`k = ${k}: an offset was committed after the failure`),
        () => (this.refused += 1),
      )
      await sleep(10)
    }
    const limits = { maxWaitMs: 0, maxRecords: 1, maxBytes: 1_000 }
    await broker.fetch([{ topic: TOPIC, partition: 0, offset: 0 }], limits).catch((error: unknown) => {
      this.complaints.push(`k = ${k}: a read failed after the failure: ${String(error)}`)
    })
  }

  #expectRefused(k: number, what: string, status: number): void {
    if (status === 503) this.refused += 1
    else this.complaints.push(`k = ${k}: ${what} was answered with ${status} after the failure`)
  }
}

/** strace with a program under it whose syncs of some paths fail. */
function failing(when: string, paths: readonly string[]): string[] {
  const options = ['-D', '-f', '-qq', '--seccomp-bpf', '-o', '/dev/null', '-e', 'trace=fsync,fdatasync']
  const only = paths.flatMap((path) => ['-P', path])
  return ['strace', ...options, ...only, '-e', `inject=fsync,fdatasync:error=EIO:${when}`]
}
