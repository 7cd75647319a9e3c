/**
 * `npm run redrive`: dead letters of the app's group, looked at and handed back, with the functions' own settings. Asks
 * nothing; what it did is told by its output, its exit status and, with --audit, a file.
 */
import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { readConfig } from '../src/config.ts'
import { isDeadLetterReason } from '../src/dead-letter.ts'
import type { DeadLetter, DeadLetterStore } from '../src/dead-letter.ts'
import { exactTextOf } from '../src/record.ts'
import { createRedrive } from '../src/redrive.ts'
import type { Redrive, RedriveFilter } from '../src/redrive.ts'
import type { RedriveHistogram, RedrivePlan } from '../src/redrive/plan.ts'
import { brokerDrivers } from '../src/runtimes/broker-drivers.ts'
import { deadLetterDrivers } from '../src/runtimes/dead-letter-drivers.ts'
import { noticeLog } from '../src/runtimes/log-line.ts'
import { openBroker } from '../src/runtimes/open-broker.ts'
import { openDeadLetters, topicDriver } from '../src/runtimes/open-dead-letters.ts'
import { stopSignal } from '../src/runtimes/stop-signal.ts'
import {
  appOf,
  auditFile,
  columns,
  messageOf,
  numberOf,
  runCommand,
  timeOf,
  UsageError,
  whoRuns,
} from './operator-command.ts'

const help = `Usage: npm run redrive -- <command> [options]

  plan                 counts the letters that match, by topic, reason, route and fingerprint; writes nothing
  run                  hands them back to their group, oldest first; --dry-run is the same as plan
  show [<id>]          one letter, or a line for each that matches (--max, 20)
  edit <id>            hands one letter back with another value: --value-file <path> (- is the input), or --null

Which letters (all conditions must hold):
  --topic <name>  --reason <word>  --fingerprint <hex>  --key <text>  --header <name>=<text>
  --from <time>  --until <time>        when they failed; as 2026-01-31T12:00:00Z or milliseconds

Options:
  --max <n>            most letters to hand back (10000)
  --per-second <n>     most of them in a second (100)
  --max-redrives <n>   a letter that came back so often stays (3)
  --claim-ttl-ms <n>   how long a redrive that was killed keeps others out (60000)
  --actor <name>       who does this, for the audit; the user of this machine
  --audit <path>       appends the audit records as lines of JSON
  --app <path>         the file that exports the app (functions/app.ts)
  --value              show prints the value and the key as well
  --json               the result as JSON

Settings are those of the functions, by environment: UPSTASH_KAFKA_REST_URL or KEDGE_BROKER, and KEDGE_DEAD_LETTERS.
The status is 0 when all is done, 1 when something failed, 2 for what cannot be read.
`

const flags = {
  help: { type: 'boolean', short: 'h', default: false },
  topic: { type: 'string' },
  reason: { type: 'string' },
  fingerprint: { type: 'string' },
  key: { type: 'string' },
  header: { type: 'string' },
  from: { type: 'string' },
  until: { type: 'string' },
  max: { type: 'string' },
  'per-second': { type: 'string' },
  'max-redrives': { type: 'string' },
  'claim-ttl-ms': { type: 'string' },
  'dry-run': { type: 'boolean', default: false },
  actor: { type: 'string' },
  audit: { type: 'string' },
  app: { type: 'string', default: 'functions/app.ts' },
  value: { type: 'boolean', default: false },
  'value-file': { type: 'string' },
  null: { type: 'boolean', default: false },
  json: { type: 'boolean', default: false },
} as const

type Flags = ReturnType<typeof parse>['values']

const always = ['help', 'actor', 'audit', 'app', 'json'] as const
const conditions = ['topic', 'reason', 'fingerprint', 'key', 'header', 'from', 'until'] as const
const bounds = ['max', 'per-second', 'max-redrives', 'claim-ttl-ms', 'dry-run'] as const

/** What each command takes. */
const commands: Readonly<Record<string, readonly (keyof Flags)[]>> = {
  // What is run may be planned first with the same words.
  plan: [...always, ...conditions, ...bounds],
  run: [...always, ...conditions, ...bounds],
  show: [...always, ...conditions, 'max', 'value'],
  edit: [...always, 'value-file', 'null', 'max-redrives', 'claim-ttl-ms'],
}

const stop = stopSignal()
await runCommand('redrive', main)

function parse() {
  return parseArgs({ options: flags, allowPositionals: true })
}

async function main(): Promise<number> {
  const { values, positionals } = parse()
  const [command, id, ...rest] = positionals
  if (values.help || command === undefined) {
    process.stdout.write(help)
    return values.help ? 0 : 2
  }
  const takes = Object.hasOwn(commands, command) ? commands[command] : undefined
  if (takes === undefined) throw new UsageError(`There is no command ${command}.`)
  if (rest.length > 0 || (id !== undefined && (command === 'plan' || command === 'run'))) {
    throw new UsageError(`The command ${command} takes no ${rest[0] ?? id}.`)
  }
  checkFlags(command, takes, values)
  const filter = filterOf(values)
  const numbers = {
    maxLetters: numberOf('max', values.max),
    perSecond: numberOf('per-second', values['per-second']),
    maxRedrives: numberOf('max-redrives', values['max-redrives']),
    claimTtlMs: numberOf('claim-ttl-ms', values['claim-ttl-ms']),
  }
  const app = await appOf(values.app)
  const config = readConfig('functions', process.env)
  await using broker = await openBroker(config.broker, brokerDrivers)
  await using store = await openDeadLetters(config.deadLetters, {
    topic: topicDriver(broker),
    ...deadLetterDrivers,
  })
  const { audit } = values
  const redrive = createRedrive({
    broker,
    store,
    groupId: app.groupId,
    app,
    log: noticeLog,
    ...(numbers.maxRedrives === undefined ? {} : { maxRedrives: numbers.maxRedrives }),
    ...(numbers.claimTtlMs === undefined ? {} : { claimTtlMs: numbers.claimTtlMs }),
    ...(audit === undefined ? {} : { audit: auditFile(audit) }),
  })
  if (command === 'show') return await show(store, app.groupId, id, filter, numbers.maxLetters ?? 20, values)
  if (command === 'edit') return await edit(redrive, id, values)
  if (command === 'plan' || values['dry-run']) return await plan(redrive, filter, values)
  return await run(redrive, filter, numbers, values)
}

/** A flag that is passed over may have been meant to keep something from happening. */
function checkFlags(command: string, takes: readonly (keyof Flags)[], values: Flags): void {
  for (const [flag, value] of Object.entries(values)) {
    const isGiven = value !== undefined && value !== false
    if (isGiven && !takes.some((one) => one === flag)) {
      throw new UsageError(`The command ${command} takes no --${flag}.`)
    }
  }
}

async function plan(redrive: Redrive, filter: RedriveFilter, { json }: Flags): Promise<number> {
  const found = await redrive.plan(filter)
  console.log(json ? JSON.stringify(found) : planText(found))
  return 0
}

async function run(
  redrive: Redrive,
  filter: RedriveFilter,
  { maxLetters, perSecond }: { readonly maxLetters: number | undefined; readonly perSecond: number | undefined },
  { actor = whoRuns(), json }: Flags,
): Promise<number> {
  const report = await redrive.run({
    actor,
    filter,
    signal: stop,
    ...(maxLetters === undefined ? {} : { maxLetters }),
    ...(perSecond === undefined ? {} : { perSecond }),
  })
  const { ended, redriven, quarantined, unread, refused, durationMs, cause } = report
  if (json) console.log(JSON.stringify(report))
  else {
    const counts = { redriven, quarantined, unread, refused, seconds: (durationMs / 1_000).toFixed(1), ended }
    console.log(columns(Object.entries(counts).map(([name, count]) => [name, String(count)])))
    if (cause !== undefined) console.log(`cause: ${cause.message}`)
  }
  return refused > 0 || (ended !== 'done' && ended !== 'max-letters') ? 1 : 0
}

async function edit(redrive: Redrive, id: string | undefined, values: Flags): Promise<number> {
  const { 'value-file': path, null: isNull, actor = whoRuns() } = values
  if (id === undefined) throw new UsageError('edit takes the id of a letter; show lists them.')
  if ((path === undefined) === !isNull) throw new UsageError('edit takes either --value-file or --null.')
  const value = path === undefined ? null : valueIn(path)
  await redrive.edit({ actor, id, value })
  console.log(values.json ? JSON.stringify({ id, ended: 'done' }) : `redriven with another value: ${id}`)
  return 0
}

function valueIn(path: string): Uint8Array {
  try {
    return new Uint8Array(readFileSync(path === '-' ? 0 : path))
  } catch (error) {
    throw new UsageError(`--value-file: ${messageOf(error)}. Give a file that can be read.`)
  }
}

async function show(
  store: DeadLetterStore,
  groupId: string,
  id: string | undefined,
  filter: RedriveFilter,
  max: number,
  { value, json }: Flags,
): Promise<number> {
  if (id !== undefined) {
    const letter = await store.get(id)
    if (letter === undefined || letter.groupId !== groupId)
      throw new UsageError(`Group ${groupId} has no letter ${id}.`)
    console.log(
      json
        ? JSON.stringify(shownOf(letter, value))
        : columns(Object.entries(shownOf(letter, value)).map(([name, text]) => [name, String(text)])),
    )
    return 0
  }
  const letters: DeadLetter[] = []
  let cursor: string | undefined
  do {
    const page = await store.list({
      ...filter,
      groupId,
      limit: Math.min(max, 100),
      ...(cursor === undefined ? {} : { cursor }),
    })
    letters.push(...page.items)
    cursor = page.cursor
  } while (cursor !== undefined && letters.length < max)
  const shown = letters.slice(0, max)
  if (json) for (const letter of shown) console.log(JSON.stringify(shownOf(letter, value)))
  else {
    console.log(
      columns([
        ['id', 'failed', 'reason', 'message'],
        ...shown.map((letter) => [
          letter.id,
          timeText(letter.failedAtMs),
          letter.reason,
          oneLine(letter.cause.message),
        ]),
      ]),
    )
    if (cursor !== undefined || letters.length > max) console.log('There are more: --max shows them.')
  }
  return 0
}

/** Of a letter what an operator looks for; the record's own content only where it was asked for. */
function shownOf(letter: DeadLetter, hasValue: boolean): Record<string, string | number | null> {
  const { id, record, reason, cause, attempts, failedAtMs, route, fingerprint, redriveCount } = letter
  return {
    id,
    topic: record.topic,
    partition: record.partition,
    offset: record.offset,
    written: timeText(record.timestampMs),
    failed: timeText(failedAtMs),
    reason,
    route,
    attempts,
    redriveCount,
    fingerprint,
    cause: `${cause.name}: ${oneLine(cause.message)}`,
    valueBytes: record.value === null ? null : record.value.length,
    headers: record.headers.map(({ key }) => key).join(' '),
    ...(hasValue ? { key: contentText(record.key), value: contentText(record.value) } : {}),
  }
}

function planText(plan: RedrivePlan): string {
  const { letters, redrivable, quarantined, unread, bytes, oldestMs, newestMs } = plan
  const counts = { letters, redrivable, quarantined, unread, bytes }
  const head = [
    ...Object.entries(counts).map(([name, count]): string[] => [name, String(count)]),
    ...(oldestMs === undefined ? [] : [['oldest', timeText(oldestMs)]]),
    ...(newestMs === undefined ? [] : [['newest', timeText(newestMs)]]),
  ]
  const parts = { topic: plan.byTopic, reason: plan.byReason, route: plan.byRoute, fingerprint: plan.byFingerprint }
  const histograms =
    letters === 0 ? [] : Object.entries(parts).map(([name, histogram]) => histogramText(name, histogram))
  return [columns(head), ...histograms].join('\n\n')
}

function histogramText(name: string, { buckets, others }: RedriveHistogram): string {
  const rows = buckets.map(({ value, letters, example }) => [value ?? '(none)', String(letters), oneLine(example)])
  return columns([[name, 'letters', 'example'], ...rows, ...(others === 0 ? [] : [['(others)', String(others), '']])])
}

function filterOf(values: Flags): RedriveFilter {
  const { topic, reason, fingerprint, key, header } = values
  if (reason !== undefined && !isDeadLetterReason(reason)) throw new UsageError(`--reason: there is no ${reason}.`)
  const { from, until } = values
  const at = header?.indexOf('=') ?? 0
  if (at < 0) throw new UsageError('--header: give <name>=<text>.')
  return {
    ...(topic === undefined ? {} : { topic }),
    ...(reason === undefined ? {} : { reason }),
    ...(fingerprint === undefined ? {} : { fingerprint }),
    ...(key === undefined ? {} : { key }),
    ...(header === undefined ? {} : { header: { key: header.slice(0, at), value: header.slice(at + 1) } }),
    ...(from === undefined ? {} : { fromMs: timeOf('from', from) }),
    ...(until === undefined ? {} : { untilMs: timeOf('until', until) }),
  }
}

function contentText(bytes: Uint8Array | null): string | null {
  if (bytes === null) return null
  const text = exactTextOf(bytes)
  return text ?? `base64 ${Buffer.from(bytes).toString('base64')}`
}

function oneLine(text: string): string {
  const line = text.replace(/[\p{Cc}\p{Zl}\p{Zp}]+/gu, ' ')
  return line.length > 100 ? `${line.slice(0, 99).toWellFormed()}…` : line
}

function timeText(timeMs: number): string {
  return new Date(timeMs).toISOString()
}
