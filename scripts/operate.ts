/**
 * `npm run operate`: what an operator does to the app's group while it is on, with the functions' own settings. Asks nothing;
 * what it did is told by its output, its exit status and, with --audit, a file.
 */
import { parseArgs } from 'node:util'
import { readConfig } from '../src/config.ts'
import { createOperations } from '../src/operations.ts'
import type { BackfillReport, MovedPartition, Operations, OperationsStatus, SeekTarget } from '../src/operations.ts'
import type { BackfillOrder, Paused } from '../src/operations/state.ts'
import { brokerDrivers } from '../src/runtimes/broker-drivers.ts'
import { noticeLog } from '../src/runtimes/log-line.ts'
import { openBroker } from '../src/runtimes/open-broker.ts'
import { stopSignal } from '../src/runtimes/stop-signal.ts'
import { appOf, auditFile, columns, numberOf, runCommand, timeOf, UsageError, whoRuns } from './operator-command.ts'

const help = `Usage: npm run operate -- <verb> [options]

  status               where the group stands in each partition, and what is paused
  seek                 sets its offsets: --topic, --to <where>, and --partition where not all of them
  skip                 passes one record over: --topic, --partition, --offset, --reason
  pause                handles nothing of the group, of --topic, or of --topic and --key, until it is resumed; offsets stay
  resume               takes a pause back: of the group, of --topic, or of --topic and --key
  backfill             replays a range of a topic into this group only: --topic, --from <where>, --until <where> (latest)
  resume-backfill      goes on with one that did not end: --topic
  stop-backfill        takes one back, wherever it runs: --topic

Where to: an offset, earliest, latest, or a time as 2026-01-31T12:00:00Z (the first record at or after it).

Options:
  --topic <name>  --key <text>  --partition <n>  --offset <n>  --to <where>  --from <where>  --until <where>
  --per-second <n>     most records that a backfill replays in a second (100)
  --reason <text>      why, for the audit
  --dry-run            seek, skip and backfill say what they would do, and do nothing
  --wait <seconds>     seek and skip wait so long for runs that are on; new ones are kept out meanwhile (0)
  --actor <name>       who does this, for the audit; the user of this machine
  --audit <path>       appends the audit records as lines of JSON
  --app <path>         the file that exports the app (functions/app.ts)
  --json               the result as JSON

A run that is on is in the way of seek and skip. A process that consumes is never idle: pause, seek, resume.
Settings are those of the functions, by environment: UPSTASH_KAFKA_REST_URL or KEDGE_BROKER.
The status is 0 when it is done, 1 when it was refused or failed, 2 for what cannot be read.
`

const flags = {
  help: { type: 'boolean', short: 'h', default: false },
  topic: { type: 'string' },
  key: { type: 'string' },
  partition: { type: 'string' },
  offset: { type: 'string' },
  to: { type: 'string' },
  from: { type: 'string' },
  until: { type: 'string' },
  'per-second': { type: 'string' },
  reason: { type: 'string' },
  'dry-run': { type: 'boolean', default: false },
  wait: { type: 'string' },
  actor: { type: 'string' },
  audit: { type: 'string' },
  app: { type: 'string', default: 'functions/app.ts' },
  json: { type: 'boolean', default: false },
} as const

type Flags = ReturnType<typeof parse>['values']

interface Verb {
  /** Flags that it takes beside those of all verbs. */
  readonly takes: readonly (keyof Flags)[]
  /** Flags that it cannot do without. */
  readonly needs: readonly (keyof Flags)[]
  /** Reads what was asked for, and gives what does it and what is printed, as text and as JSON. */
  readonly read: (values: Flags) => (operations: Operations) => Promise<Done>
}

/** What is printed, as text and as JSON; and the exit status where it is not 0. */
type Done = readonly [text: string, json: unknown, status?: number]

const verbs: Readonly<Record<string, Verb>> = {
  status: {
    takes: [],
    needs: [],
    read: () => async (operations) => {
      const status = await operations.status()
      return [statusText(status), status]
    },
  },
  seek: {
    takes: ['topic', 'partition', 'to', 'dry-run', 'wait'],
    needs: ['topic', 'to'],
    read(values) {
      const { topic = '', to = '' } = values
      const partition = numberOf('partition', values.partition)
      const asked = {
        ...common(values),
        topic,
        to: targetOf('to', to),
        ...(partition === undefined ? {} : { partition }),
      }
      return async (operations) => {
        const moved = await operations.seek(asked)
        return [movedText(moved, values), moved]
      }
    },
  },
  skip: {
    takes: ['topic', 'partition', 'offset', 'dry-run', 'wait'],
    needs: ['topic', 'partition', 'offset', 'reason'],
    read(values) {
      const { topic = '', reason = '' } = values
      const partition = numberOf('partition', values.partition) ?? 0
      const offset = numberOf('offset', values.offset) ?? 0
      const asked = { ...common(values), reason, topic, partition, offset }
      return async (operations) => {
        const moved = await operations.skip(asked)
        return [movedText([moved], values), moved]
      }
    },
  },
  backfill: {
    takes: ['topic', 'partition', 'from', 'until', 'per-second', 'dry-run'],
    needs: ['topic', 'from'],
    read(values) {
      const { topic = '', from = '', until = 'latest' } = values
      const partition = numberOf('partition', values.partition)
      const perSecond = numberOf('per-second', values['per-second'])
      const asked = {
        ...operatorOf(values),
        topic,
        from: targetOf('from', from),
        until: targetOf('until', until),
        ...(partition === undefined ? {} : { partition }),
        ...(perSecond === undefined ? {} : { perSecond }),
      }
      return async (operations) => {
        if (!values['dry-run']) return backfilled(await operations.backfill({ ...asked, signal: stopSignal() }))
        const plan = await operations.planBackfill(asked)
        return [`${rangesText(plan)}\n${plan.records} records at most. Nothing was changed.`, plan]
      }
    },
  },
  'resume-backfill': {
    takes: ['topic'],
    needs: ['topic'],
    read: (values) => async (operations) => {
      const asked = { ...operatorOf(values), topic: values.topic ?? '', signal: stopSignal() }
      return backfilled(await operations.resumeBackfill(asked))
    },
  },
  'stop-backfill': {
    takes: ['topic'],
    needs: ['topic'],
    read: (values) => async (operations) => {
      const order = await operations.stopBackfill({ ...operatorOf(values), topic: values.topic ?? '' })
      return [`${rangesText(order)}\nIt is stopped. What was replayed already is handled.`, order]
    },
  },
  pause: {
    takes: ['topic', 'key'],
    needs: [],
    read(values) {
      const asked = pauseOf(values)
      return async (operations) => shown(await operations.pause(asked))
    },
  },
  resume: {
    takes: ['topic', 'key'],
    needs: [],
    read(values) {
      const asked = pauseOf(values)
      return async (operations) => shown(await operations.resume(asked))
    },
  },
}

const always: readonly string[] = ['help', 'reason', 'actor', 'audit', 'app', 'json']

await runCommand('operate', main)

function parse() {
  return parseArgs({ options: flags, allowPositionals: true })
}

async function main(): Promise<number> {
  const { values, positionals } = parse()
  const [name, ...rest] = positionals
  if (values.help || name === undefined) {
    process.stdout.write(help)
    return values.help ? 0 : 2
  }
  const verb = Object.hasOwn(verbs, name) ? verbs[name] : undefined
  if (verb === undefined) throw new UsageError(`There is no verb ${name}.`)
  if (rest[0] !== undefined) throw new UsageError(`The verb ${name} takes no ${rest[0]}.`)
  checkFlags(name, verb, values)
  const run = verb.read(values)
  const app = await appOf(values.app)
  const config = readConfig('functions', process.env)
  await using broker = await openBroker(config.broker, brokerDrivers)
  const { audit } = values
  const operations = createOperations({
    broker,
    groupId: app.groupId,
    app,
    log: noticeLog,
    ...(audit === undefined ? {} : { audit: auditFile(audit) }),
  })
  const [text, json, status = 0] = await run(operations)
  console.log(values.json ? JSON.stringify(json) : text)
  return status
}

/** A flag that is passed over may have been meant to keep something from happening. */
function checkFlags(name: string, { takes, needs }: Verb, values: Flags): void {
  for (const [flag, value] of Object.entries(values)) {
    const isGiven = value !== undefined && value !== false
    if (isGiven && !always.includes(flag) && !takes.some((one) => one === flag)) {
      throw new UsageError(`The verb ${name} takes no --${flag}.`)
    }
  }
  const missing = needs.find((flag) => values[flag] === undefined)
  if (missing !== undefined) throw new UsageError(`The verb ${name} needs --${missing}.`)
}

function common(values: Flags) {
  const waitMs = (numberOf('wait', values.wait) ?? 0) * 1_000
  return { ...operatorOf(values), waitMs, dryRun: values['dry-run'] }
}

function operatorOf({ actor = whoRuns(), reason }: Flags) {
  return { actor, ...(reason === undefined ? {} : { reason }) }
}

function pauseOf(values: Flags) {
  const { topic, key } = values
  if (key !== undefined && topic === undefined) throw new UsageError('--key: say of which topic: --topic <name>.')
  return {
    ...operatorOf(values),
    ...(topic === undefined ? {} : { topic }),
    ...(key === undefined ? {} : { key }),
  }
}

function targetOf(flag: string, text: string): SeekTarget {
  if (text === 'earliest' || text === 'latest') return text
  return /^\d+$/.test(text) ? Number(text) : { timeMs: timeOf(flag, text) }
}

function backfilled(report: BackfillReport): Done {
  const { ended, replayed, left, durationMs, cause } = report
  const counts = { replayed, left, seconds: (durationMs / 1_000).toFixed(1), ended }
  const text = columns(Object.entries(counts).map(([name, count]) => [name, String(count)]))
  return [cause === undefined ? text : `${text}\ncause: ${cause.message}`, report, ended === 'done' ? 0 : 1]
}

function rangesText({ topic, ranges }: Pick<BackfillOrder, 'topic' | 'ranges'>): string {
  const rows = ranges.map(({ partition, from, until }) => [`${topic}[${partition}]`, String(from), String(until)])
  return columns([['partition', 'from', 'until'], ...rows])
}

function movedText(moved: readonly MovedPartition[], { 'dry-run': isDryRun }: Flags): string {
  const rows = moved.map(({ topic, partition, before, after, logStartOffset, logEndOffset }) => [
    `${topic}[${partition}]`,
    offsetText(before),
    String(after),
    `${logStartOffset} to ${logEndOffset}`,
  ])
  const text = columns([['partition', 'before', isDryRun ? 'would be' : 'now', 'the log has'], ...rows])
  return isDryRun ? `${text}\nNothing was changed.` : text
}

function shown(paused: Paused): readonly [string, Paused] {
  return [pausedText(paused), paused]
}

function pausedText({ group, topics, keys }: Paused): string {
  const ofKeys = keys.map(({ topic, key }) => `key ${JSON.stringify(key)} of ${topic}`)
  const parts = [...(group ? ['the group'] : []), ...topics, ...ofKeys]
  return `paused: ${parts.length === 0 ? 'nothing' : parts.join(', ')}`
}

function statusText({ groupId, isHeeded, paused, backfills, members, partitions }: OperationsStatus): string {
  const rows = partitions.map(({ topic, partition, committedOffset, logStartOffset, logEndOffset, lag }) => [
    `${topic}[${partition}]`,
    offsetText(committedOffset),
    String(lag ?? ''),
    `${logStartOffset} to ${logEndOffset}`,
  ])
  const instances = members.map(({ groupInstanceId, assignment, runId }) => [
    groupInstanceId,
    runId === null ? 'idle' : `run ${runId}`,
    assignment.map(({ topic, partition }) => `${topic}[${partition}]`).join(' '),
  ])
  return [
    `group ${groupId}`,
    isHeeded ? pausedText(paused) : 'Its runs do not ask what is paused: set operations: true in defineApp.',
    columns([['partition', 'committed', 'lag', 'the log has'], ...rows]),
    ...backfills.map((order) => `a backfill of at most ${order.perSecond} records in a second:\n${rangesText(order)}`),
    ...(instances.length === 0 ? [] : [columns([['instance', 'doing', 'holds'], ...instances])]),
  ].join('\n\n')
}

function offsetText(offset: number): string {
  return offset < 0 ? '(none)' : String(offset)
}
