/**
 * Redrive: dead letters come back to their group, and to no other. Each letter is produced to the group's redrive topic
 * first, and deleted from its store only when that is durable: whoever is killed in between loses nothing, and the next
 * redrive produces the letter again, under the same idempotency key where the broker knows keys.
 *
 * One redrive of a group is active at a time. Every run and every edit leaves an audit record.
 */
import { groupNameProblem } from './app.ts'
import type { App } from './app.ts'
import { DEFAULT_CLAIM_TTL_MS } from './broker.ts'
import type { Broker } from './broker.ts'
import { systemClock } from './clock.ts'
import type { Clock } from './clock.ts'
import type { RunCause } from './consumer/report.ts'
import { deadLetterReasons, isDeadLetterReason } from './dead-letter.ts'
import type { DeadLetterId, DeadLetterQuery, DeadLetterStore } from './dead-letter.ts'
import { abortError, ConfigError } from './errors.ts'
import type { Log } from './logger.ts'
import { systemRandom } from './random.ts'
import type { Random } from './random.ts'
import { redriveTopicName } from './return-topic.ts'
import type { TimestampMs } from './record.ts'
import { audited } from './redrive/audit.ts'
import type { AuditSink } from './redrive/audit.ts'
import { RedriveCalls } from './redrive/calls.ts'
import { redriveEdited } from './redrive/edit.ts'
import { planOf } from './redrive/plan.ts'
import type { RedrivePlan } from './redrive/plan.ts'
import { redriveLetters } from './redrive/run.ts'
import { RedriveTopics } from './redrive/topics.ts'

/** Which letters of the group: all conditions must hold. */
export type RedriveFilter = Omit<DeadLetterQuery, 'groupId' | 'cursor' | 'limit'>

/** What a redrive works with. */
export interface RedriveOptions {
  readonly broker: Broker
  /** Must list, and for more than a plan delete; one that lists in another order than that of its puts must also get. */
  readonly store: DeadLetterStore
  /** Whose letters come back. Letters, digits, dots, dashes and underscores: topics are called after it. */
  readonly groupId: string
  /**
   * The group's app. With it, redrive topics are made where they are missing, letters of topics that the app brings nothing
   * back from stay where they are, and letters can be edited. Without it, a letter needs its redrive topic to be there.
   */
  readonly app?: App
  /** A letter that came back so often and failed again stays: it is quarantined. @default 3, legal 1 to 1000 */
  readonly maxRedrives?: number
  /** How long a redrive that died keeps others out, milliseconds. @default 60000, legal 1000 to 900000 */
  readonly claimTtlMs?: number
  /** How long one call to the broker or the store may take, milliseconds. @default 10000, legal 1 to 300000 */
  readonly callTimeoutMs?: number
  readonly clock?: Clock
  readonly random?: Random
  /** Takes a line when a redrive starts and ends, with who did what. @default none */
  readonly log?: Log
  /** Takes the audit records. One that fails at the start refuses the redrive. @default none */
  readonly audit?: AuditSink
}

/** How letters are redriven. */
export interface RedriveRunOptions {
  /** Who asks for it, for the audit: 1 to 200 characters without control characters. */
  readonly actor: string
  /** @default all letters of the group */
  readonly filter?: RedriveFilter
  /** Most letters to hand back. @default 10000, legal 1 to 100000 */
  readonly maxLetters?: number
  /** Most letters in a second. What a slow call cost is made up for by a tenth of a second at most. @default 100, legal 0.01 to 10000 */
  readonly perSecond?: number
  /** Aborted: the letter in hand is finished, then the run ends. */
  readonly signal?: AbortSignal
  /** Takes the counts after each letter. Must return at once. */
  readonly onProgress?: (counts: RedriveCounts) => void
}

/** How one letter is redriven with another value. */
export interface RedriveEditOptions {
  /** Who asks for it, for the audit: 1 to 200 characters without control characters. */
  readonly actor: string
  readonly id: DeadLetterId
  /** In place of the record's value, as bytes of the topic's format. Everything else stays as it was. */
  readonly value: Uint8Array | null
}

/** How many letters became what. */
export interface RedriveCounts {
  /** Durable in the redrive topic, and deleted from the store. */
  readonly redriven: number
  /** Came back too often already; they stay in the store. */
  readonly quarantined: number
  /** Their topic is none from which the group reads what comes back; they stay in the store. */
  readonly unread: number
  /** The broker refused the record itself, as one that is too large; they stay in the store. */
  readonly refused: number
}

/**
 * Why a run ended: every matching letter was looked at, `maxLetters` were handed back and there are more, its signal was
 * aborted, its lock lapsed and another redrive may have begun, or a call failed for good.
 */
export type RedriveEnd = 'done' | 'max-letters' | 'aborted' | 'lock-lost' | 'failed'

/** What a run did. */
export interface RedriveReport extends RedriveCounts {
  readonly groupId: string
  /** Unique to the run; the audit has it too. */
  readonly runId: string
  readonly ended: RedriveEnd
  /** With `failed` and `lock-lost`; otherwise that of the first letter that was refused. */
  readonly cause?: RunCause
  readonly startedAtMs: TimestampMs
  readonly durationMs: number
}

/** Redrives the letters of one group. */
export interface Redrive {
  /**
   * Counts the matching letters, by what they have in common. Writes nothing and keeps nobody out.
   * @throws {DeadLetterStoreError} as the store does · {ConfigError} for a filter that cannot be read · the reason of `signal`,
   * which is looked at before each page
   */
  plan(filter?: RedriveFilter, options?: { readonly signal?: AbortSignal }): Promise<RedrivePlan>

  /**
   * Hands matching letters back to their group, oldest first. Each of them once, however often it fails again meanwhile.
   * After a crash the same call goes on where the last one was: what was deleted is done.
   * @throws {BrokerError} CLAIM_HELD with `retryAfterMs` while another redrive of the group is active; GROUP_ID_NOT_FOUND
   * for a group without members and committed offsets · {ConfigError} for an option outside its range, an app that reads
   * no redrive topics, or a store that does not delete · what the audit sink rejects with. Failures after that are in the report.
   */
  run(options: RedriveRunOptions): Promise<RedriveReport>

  /**
   * Hands one letter back with another value, which the topic's schema and the route's must accept. Its id, its coordinates
   * and the rest of the record stay.
   * @throws {RecordError} for a value that is not accepted · {DeadLetterStoreError} INVALID_REQUEST for a letter that is not
   * there, of another group, or quarantined · as `run` does, and as the broker and the store do
   */
  edit(options: RedriveEditOptions): Promise<void>
}

/** The numbers of a redrive that says nothing. */
export const redriveDefaults: Readonly<
  Record<'maxRedrives' | 'claimTtlMs' | 'callTimeoutMs' | 'maxLetters' | 'perSecond', number>
> = Object.freeze({
  maxRedrives: 3,
  claimTtlMs: DEFAULT_CLAIM_TTL_MS,
  callTimeoutMs: 10_000,
  maxLetters: 10_000,
  perSecond: 100,
})

/**
 * Makes a redrive.
 * @throws {ConfigError} INVALID_CONFIG for options outside their range, a group no topic can be called after, an app of
 * another group, and a broker or store that lacks what it takes.
 */
export function createRedrive(options: RedriveOptions): Redrive {
  const settings = settingsOf(options)
  const { broker, store, groupId, app, clock, random, callTimeoutMs, maxRedrives } = settings
  const scope = {
    ...settings,
    topics: (calls: RedriveCalls) => new RedriveTopics({ broker, groupId, app, maxRedrives, calls }),
  }
  return {
    async plan(filter = {}, { signal } = {}) {
      checkFilter(filter)
      const before = async (): Promise<void> => {
        if (signal?.aborted === true) throw abortError(signal)
      }
      const calls = new RedriveCalls({ clock, random, callTimeoutMs, before })
      return await planOf({ store, groupId, calls, topics: scope.topics(calls) }, filter)
    },

    async run({ actor, filter = {}, signal, onProgress, ...bounds }) {
      const maxLetters = bounds.maxLetters ?? redriveDefaults.maxLetters
      const perSecond = bounds.perSecond ?? redriveDefaults.perSecond
      checkActor(actor)
      checkFilter(filter)
      checkAbilities(settings)
      check('maxLetters', maxLetters, 1, 100_000, true)
      check('perSecond', perSecond, 0.01, 10_000, false)
      return await audited(scope, { action: 'run', actor, filter }, (work) =>
        redriveLetters(scope, work, { filter, maxLetters, perSecond, signal, onProgress }),
      )
    },

    async edit({ actor, id, value }) {
      checkActor(actor)
      checkAbilities(settings)
      if (app === undefined) {
        throw new ConfigError('Cannot redrive an edited letter: only its app can check the value. Give the app.')
      }
      await audited(scope, { action: 'edit', actor, letterId: id }, (work) =>
        redriveEdited(scope, work, { app, id, value }),
      )
    },
  }
}

/** A redrive's options with nothing left open. */
export interface RedriveSettings {
  readonly broker: Broker
  readonly store: DeadLetterStore
  readonly groupId: string
  readonly app: App | undefined
  readonly maxRedrives: number
  readonly claimTtlMs: number
  readonly callTimeoutMs: number
  readonly clock: Clock
  readonly random: Random
  readonly log: Log | undefined
  readonly audit: AuditSink | undefined
}

function settingsOf(options: RedriveOptions): RedriveSettings {
  const { broker, store, groupId, app, clock = systemClock, random = systemRandom, log, audit } = options
  const maxRedrives = options.maxRedrives ?? redriveDefaults.maxRedrives
  const claimTtlMs = options.claimTtlMs ?? redriveDefaults.claimTtlMs
  const callTimeoutMs = options.callTimeoutMs ?? redriveDefaults.callTimeoutMs
  check('maxRedrives', maxRedrives, 1, 1_000, true)
  check('claimTtlMs', claimTtlMs, 1_000, 900_000, true)
  check('callTimeoutMs', callTimeoutMs, 1, 300_000, true)
  const problem = problemOf(options)
  if (problem !== undefined) throw new ConfigError(`Cannot redrive: ${problem}`)
  return { broker, store, groupId, app, maxRedrives, claimTtlMs, callTimeoutMs, clock, random, log, audit }
}

function problemOf({ broker, store: { features }, groupId, app }: RedriveOptions): string | undefined {
  const name = groupNameProblem(groupId)
  if (name !== undefined) return `groupId ${JSON.stringify(groupId)}: ${name}`
  if (redriveTopicName('t', groupId) === undefined) {
    return `no topic can be called after the group ${JSON.stringify(groupId)}: it needs letters, digits, dots, dashes and underscores only.`
  }
  if (app !== undefined && app.groupId !== groupId) {
    return `the app is of the group ${app.groupId}, and the redrive of ${groupId}: give the app of that group.`
  }
  if (!broker.features.claims) return 'the broker has no claims, without which two redrives could run at once.'
  if (!features.list) return 'the store cannot list letters: redrive with its own tools.'
  if (features.listOrder !== 'put' && !features.get) return 'the store lists letters in no order and cannot get one.'
  return undefined
}

function check(name: string, value: number, min: number, max: number, isWhole: boolean): void {
  if (value >= min && value <= max && (!isWhole || Number.isInteger(value))) return
  throw new ConfigError(
    `Cannot redrive: ${name} is ${value}: give ${isWhole ? 'an integer' : 'a number'} from ${min} to ${max}.`,
  )
}

function checkActor(actor: unknown): void {
  if (typeof actor === 'string' && /^[^\p{Cc}\p{Cs}]{1,200}$/u.test(actor)) return
  throw new ConfigError(
    'Cannot redrive: actor: say who asks for it, in 1 to 200 characters without control characters.',
  )
}

/** What a run and an edit need beyond a plan. */
function checkAbilities({ store, app }: RedriveSettings): void {
  if (!store.features.delete) {
    throw new ConfigError(
      'Cannot redrive: the store cannot delete letters, so that each run would hand all of them back again. Keep letters in one that can.',
    )
  }
  if (app === undefined || [...app.returnTopics.values()].some(({ stage }) => stage === 0)) return
  throw new ConfigError(
    `Cannot redrive: the app of group ${app.groupId} does not read what comes back. Set redrive: true in defineApp and deploy it.`,
  )
}

function checkFilter({ reason, fromMs, untilMs }: RedriveFilter): void {
  if (reason !== undefined && !isDeadLetterReason(reason)) {
    throw new ConfigError(
      `Cannot redrive: filter.reason is ${JSON.stringify(reason)}: give one of ${deadLetterReasons.join(', ')}.`,
    )
  }
  for (const [name, time] of Object.entries({ fromMs, untilMs })) {
    if (time !== undefined && !Number.isFinite(time)) {
      throw new ConfigError(`Cannot redrive: filter.${name} is ${time}: give milliseconds since the epoch.`)
    }
  }
}
