/**
 * `npm run prove -- log-power-loss`: what the log does to its files is recorded, call by call. Then the power fails at some moment,
 * ten thousand times: what was synced is there, and of the rest any part. Each time the log opens, has all that was acknowledged
 * by then, byte for byte, and takes records again.
 */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { logBroker } from '../src/brokers/log.ts'
import { bytesOf } from '../src/record.ts'
import { seeded } from '../test/support/chaos.ts'
import { requireStrace, temporaryFolder } from './embedded-log/folder.ts'
import { storedItems } from './embedded-log/stored.ts'
import { check } from './history/check.ts'
import type { HistoryEvent } from './history/history.ts'
import { type Image, imageAfter } from './log-power-loss/image.ts'
import { type Deed, recordProgram } from './log-power-loss/recording.ts'
import { GROUP, PARTITIONS, TOPIC } from './log-power-loss/told.ts'
import type { Proof, ProofOptions, ProofResult } from './proof.ts'

/** Losses of power. */
export const logPowerLoss: Proof = {
  summary: 'the power fails while the embedded log writes, and what was not synced is there in part; nothing is lost',
  prove,
}

const SHOWN = 10
/** Losses of power of a log that does not sync, for each recording. */
const CONTROLS = 20
const writer = join(import.meta.dirname, 'log-power-loss', 'writer.ts')

/** What the recorded program does, and how many losses of power its recording is good for. */
interface Course {
  readonly lives: number
  readonly rounds: number
  readonly bytes: number
  readonly images: number
}

/** Small records in several lives; and records so large that the log moves its WAL into its file while it works. */
const courses: readonly Course[] = [
  { lives: 4, rounds: 12, bytes: 200, images: 4_900 },
  { lives: 2, rounds: 40, bytes: 3_000, images: 4_900 },
  { lives: 1, rounds: 24, bytes: 500_000, images: 200 },
]
const quickCourses: readonly Course[] = [{ lives: 3, rounds: 8, bytes: 200, images: 150 }]

async function prove({ seed, quick, say, stop }: ProofOptions): Promise<ProofResult> {
  requireStrace()
  const totals = { deeds: 0, syncs: 0, images: 0, acknowledgedChecked: 0, unlike: 0, lostWithoutSyncs: 0 }
  const found: string[] = []
  for (const [index, course] of (quick ? quickCourses : courses).entries()) {
    using folder = temporaryFolder('power')
    const { lives, rounds, bytes } = course
    const args = [seed + index, lives, rounds, bytes].map(String)
    const deeds = await recordProgram({ folder: folder.path, program: writer, args })
    totals.deeds += deeds.length
    totals.syncs += deeds.filter(({ what }) => what === 'sync').length
    const random = seeded(seed + index)
    // Memory, where there is some: the images are many, and nothing hangs on their own syncs.
    using images = temporaryFolder('images', '/dev/shm')
    for (let image = 0; image < course.images && !stop.aborted; image++) {
      const outcome = await failOnce(deeds, random, images.path)
      totals.images += 1
      totals.acknowledgedChecked += outcome.acknowledged
      if (outcome.isUnlike) totals.unlike += 1
      for (const line of outcome.violations) found.push(`course ${index}, loss ${image}: ${line}`)
    }
    say(`  course ${index}: ${deeds.length} calls recorded, ${course.images} losses of power`)
    totals.lostWithoutSyncs += await lossesWithoutSyncs(deeds, seeded(seed), images.path)
  }
  for (const line of found.slice(0, SHOWN)) say(`  ${line}`)
  const isVacuous = totals.acknowledgedChecked === 0 || totals.unlike === 0 || totals.lostWithoutSyncs === 0
  if (isVacuous) say('  nothing was shown: no loss of power took anything, not even from a log that does not sync')
  return { runs: totals.images, violations: found.length + (isVacuous ? 1 : 0), figures: totals }
}

/** How often the same log would lose something if it did not sync: the proof of the proof. */
async function lossesWithoutSyncs(deeds: readonly Deed[], random: () => number, root: string): Promise<number> {
  const unsynced = deeds.filter(({ what }) => what !== 'sync')
  let losses = 0
  for (let image = 0; image < CONTROLS; image++) {
    const { violations } = await failOnce(unsynced, random, root)
    if (violations.length > 0) losses += 1
  }
  return losses
}

/** A moment, mostly one at which something is not synced yet. */
function momentIn(deeds: readonly Deed[], random: () => number): number {
  const count = 1 + Math.floor(random() * deeds.length)
  if (random() < 0.15) return count
  for (let later = count; later <= deeds.length; later++) {
    const what = deeds[later - 1]?.what
    if (what !== 'sync' && what !== 'sync folder' && what !== 'told') return later
  }
  return count
}

interface Outcome {
  readonly violations: readonly string[]
  readonly acknowledged: number
  /** The disk was not as the program had left it. */
  readonly isUnlike: boolean
}

async function failOnce(deeds: readonly Deed[], random: () => number, root: string): Promise<Outcome> {
  const count = momentIn(deeds, random)
  const kept = [0, 0.5, 0.9, 1][Math.floor(random() * 4)] ?? 0
  const fate = { random, kept, torn: random() < 0.5 ? 0.3 : 0 }
  const image = imageAfter(deeds, count, fate)
  const whole = imageAfter(deeds, count, { random, kept: 1, torn: 0 })
  const dir = join(root, 'log')
  rmSync(dir, { recursive: true, force: true })
  mkdirSync(dir)
  for (const [name, content] of image) writeFileSync(join(dir, name), content)
  const told = deeds.slice(0, count).flatMap((deed) => (deed.what === 'told' ? [deed.line] : []))
  const acknowledged = told.filter(({ what }) => what === 'acknowledged').length
  const isUnlike = !isEqual(image, whole)
  try {
    return { violations: await judge(dir, told), acknowledged, isUnlike }
  } catch (error) {
    return { violations: [`after ${count} calls it could not be read: ${String(error)}`], acknowledged, isUnlike }
  }
}

/** Opens the log and compares what it has with what its program was told. */
async function judge(dir: string, told: readonly ToldLine[]): Promise<string[]> {
  await using broker = logBroker({ dir })
  const topics = await broker.topics()
  const isCreated = topics.some(({ topic }) => topic === TOPIC)
  if (!isCreated) return told.some(({ what }) => what === 'created') ? ['its topic is gone'] : []
  const history: HistoryEvent[] = []
  for (const line of told) {
    if (line.what === 'sent') history.push({ type: 'sent', lane: line.lane, seq: line.seq, ...contentOf(line) })
    if (line.what !== 'acknowledged') continue
    const { lane, seq, partition, offset } = line
    history.push({ type: 'acknowledged', lane, seq, ...contentOf(line), place: `${TOPIC}/${partition}`, offset })
  }
  const log = await storedItems(broker, TOPIC, PARTITIONS)
  const { violations } = check(history, { log }, { mostOverMs: 0, isConsumed: false })
  const found = violations.map(({ kind, detail }) => `${kind}: ${detail.slice(0, 300)}`)
  const committed = await broker.committed(GROUP)
  for (const { partition, offset } of committed) {
    const least = told.findLast((line) => line.what === 'committed' && line.partition === partition)
    const isKnown = told.some(
      (line) => line.what === 'committing' && line.partition === partition && line.offset === offset,
    )
    if (!isKnown) found.push(`partition ${partition} is committed at ${offset}, which nobody asked for`)
    if (least !== undefined && 'offset' in least && offset < least.offset) {
      found.push(`partition ${partition} is committed at ${offset}, and ${least.offset} was acknowledged`)
    }
  }
  for (const line of told) {
    if (line.what !== 'committed' || committed.some(({ partition }) => partition === line.partition)) continue
    found.push(`partition ${line.partition} is not committed at all, and ${line.offset} was acknowledged`)
  }
  const [end] = await broker.offsets([{ topic: TOPIC, partition: 0 }], 'latest')
  const [more] = await broker.produce([{ topic: TOPIC, partition: 0, key: null, value: bytesOf('more') }])
  if (more === undefined || more instanceof Error || more.offset !== end?.offset) found.push('it takes no more records')
  return found
}

type ToldLine = Extract<Deed, { what: 'told' }>['line']

function contentOf({ content }: { readonly content?: string | null }): { content?: string | null } {
  return content === undefined ? {} : { content }
}

function isEqual(one: Image, other: Image): boolean {
  return one.size === other.size && [...one].every(([name, content]) => other.get(name)?.equals(content) === true)
}
