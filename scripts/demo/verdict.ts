/** Whether every delivery is exactly once where it has to be, and the table that shows it. */
import { type DeadLetter, type DeadLetterReason, deadLetterReasons } from '../../src/dead-letter.ts'
import { headerText } from '../../src/headers.ts'
import type { ConsumerRecord, TopicPartitionOffset } from '../../src/record.ts'
import type { Delivery } from './deliveries.ts'

/** Everything that was read back. */
export interface Evidence {
  readonly deliveries: readonly Delivery[]
  /** Where the produce function said it wrote each delivery, by its id. */
  readonly acknowledged: ReadonlyMap<string, TopicPartitionOffset>
  readonly records: readonly ConsumerRecord[]
  /** One for each line `handled ...` that a function printed. */
  readonly handled: readonly TopicPartitionOffset[]
  readonly letters: readonly DeadLetter[]
  readonly lag: number
}

/** The table's rows and everything that is wrong. */
export interface Verdict {
  readonly rows: readonly Row[]
  readonly problems: readonly string[]
}

interface Row {
  readonly event: string
  readonly sent: number
  readonly handled: number
  readonly deadLettered: Readonly<Partial<Record<DeadLetterReason, number>>>
}

/** Compares what was sent with what was read back. */
export function judge({ deliveries, acknowledged, records, handled, letters, lag }: Evidence): Verdict {
  const problems: string[] = []
  const byId = Map.groupBy(records, (record) => headerText(record.headers, 'x-github-delivery'))
  const handledAt = Map.groupBy(handled, placeOf)
  const lettersAt = Map.groupBy(letters, ({ record }) => placeOf(record))
  const rows = new Map<string, { sent: number; handled: number; reasons: DeadLetterReason[] }>()

  for (const { id, event, body } of deliveries) {
    const row = rows.get(event) ?? { sent: 0, handled: 0, reasons: [] }
    rows.set(event, row)
    row.sent += 1
    const [record, ...copies] = byId.get(id) ?? []
    const place = acknowledged.get(id)
    if (record === undefined || place === undefined) {
      problems.push(`${id}: ${place === undefined ? 'was never acknowledged' : 'is missing from the log'}`)
      continue
    }
    if (copies.length > 0) problems.push(`${id}: is in the log ${copies.length + 1} times`)
    if (placeOf(record) !== placeOf(place)) problems.push(`${id}: is not where its acknowledgement says`)
    if (record.value === null || new TextDecoder().decode(record.value) !== body)
      problems.push(`${id}: its value changed`)
    const times = handledAt.get(placeOf(record))?.length ?? 0
    const found = lettersAt.get(placeOf(record)) ?? []
    row.handled += times
    row.reasons.push(...found.map(({ reason }) => reason))
    if (times + found.length !== 1) {
      problems.push(`${id}: was handled ${times} times and is ${found.length} dead letters, which must be 1 together`)
    }
  }
  const total = deliveries.length
  const settled = handled.length + letters.length
  if (records.length !== total) problems.push(`the log holds ${records.length} records, ${total} were sent`)
  if (settled !== total) problems.push(`${settled} records were handled or dead-lettered, ${total} were sent`)
  if (lag !== 0) problems.push(`the group has not committed ${lag} records`)
  return { rows: [...rows].map(([event, row]) => ({ event, ...row, deadLettered: countsOf(row.reasons) })), problems }
}

/** The rows as text, with a sum. */
export function tableOf(rows: readonly Row[]): string {
  const reasons = deadLetterReasons.filter((reason) =>
    rows.some(({ deadLettered }) => deadLettered[reason] !== undefined),
  )
  const lines = rows.map(({ event, sent, handled, deadLettered }) => [
    event,
    ...[sent, handled, ...reasons.map((reason) => deadLettered[reason] ?? 0)].map((count) =>
      count === 0 ? '' : String(count),
    ),
  ])
  const sums = [
    'together',
    ...[
      sum(rows.map(({ sent }) => sent)),
      sum(rows.map(({ handled }) => handled)),
      ...reasons.map((reason) => sum(rows.map(({ deadLettered }) => deadLettered[reason] ?? 0))),
    ].map(String),
  ]
  const all = [['event', 'sent', 'handled', ...reasons], ...lines, sums]
  const widths = all[0]?.map((_, column) => Math.max(...all.map((line) => line[column]?.length ?? 0))) ?? []
  return all
    .map((line) =>
      line
        .map((cell, column) => (column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0)))
        .join('  '),
    )
    .join('\n')
}

function placeOf({ topic, partition, offset }: TopicPartitionOffset): string {
  return `${topic}[${partition}]@${offset}`
}

function countsOf(reasons: readonly DeadLetterReason[]): Partial<Record<DeadLetterReason, number>> {
  return Object.fromEntries(
    [...Map.groupBy(reasons, (reason) => reason)].map(([reason, group]) => [reason, group.length]),
  )
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0)
}
