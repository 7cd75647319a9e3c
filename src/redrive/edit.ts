/** Hands one letter back with another value. */
import type { App } from '../app.ts'
import type { DeadLetter, DeadLetterId } from '../dead-letter.ts'
import { DeadLetterStoreError, RecordError } from '../errors.ts'
import type { ConsumerRecord } from '../record.ts'
import type { RedriveSettings } from '../redrive.ts'
import { checkValue, readValue, sizeError } from '../topic.ts'
import type { Topic } from '../topic.ts'
import type { AuditedWork } from './audit.ts'
import { deleteLetter, lettersOf, MAX_PAGE } from './letters.ts'

/** What is to be changed. */
export interface Edit {
  readonly app: App
  readonly id: DeadLetterId
  readonly value: Uint8Array | null
}

/** Hands one letter back with another value. @throws as `Redrive.edit` does */
export async function redriveEdited(
  settings: RedriveSettings,
  { calls, topics }: AuditedWork,
  { app, id, value }: Edit,
): Promise<void> {
  const { store, groupId, maxRedrives } = settings
  const letter = await letterOf(settings, calls, id)
  if (letter === undefined) throw refusal(id, 'the store has no such letter. List its letters to see their ids.')
  if (letter.groupId !== groupId) throw refusal(id, `it is one of group ${letter.groupId}, not of ${groupId}.`)
  const verdict = await topics.verdictOf(letter)
  if (verdict === 'quarantined') {
    throw refusal(id, `it came back ${letter.redriveCount} times already: at most ${maxRedrives} (maxRedrives).`)
  }
  if (verdict === 'unread') throw refusal(id, `the app reads nothing that comes back from ${letter.record.topic}.`)
  const record = { ...letter.record, value: value === null ? null : Uint8Array.from(value) }
  await checkEdited(app, record)
  await topics.append(letter, record)
  await deleteLetter(store, calls, id)
}

async function letterOf(
  { store, groupId }: RedriveSettings,
  calls: AuditedWork['calls'],
  id: DeadLetterId,
): Promise<DeadLetter | undefined> {
  if (store.features.get) return await calls.make((call) => store.get(id, call))
  for await (const letter of lettersOf({ store, groupId, calls }, {}, MAX_PAGE)) if (letter.id === id) return letter
  return undefined
}

/** What the topic accepts, and the route that the record then takes. */
async function checkEdited(app: App, record: ConsumerRecord): Promise<void> {
  const topic = app.topics.get(record.topic)
  const tooLarge = topic === undefined ? undefined : sizeError(topic, record)
  if (tooLarge !== undefined) throw tooLarge
  if (topic !== undefined) await accept(topic, record)
  const matched = app.table.find(record)
  const isTaken = matched !== undefined && matched !== 'unreadable'
  if (matched === 'unreadable' || (!isTaken && typeof app.otherwise === 'string')) {
    throw new RecordError(`Cannot redrive an edited record of ${record.topic}: with this value no route takes it.`)
  }
  if (!isTaken) return
  const { topic: narrow } = matched.route.match
  if (typeof narrow !== 'string' && narrow !== topic) await accept(narrow, record)
}

async function accept(topic: Topic, { value }: ConsumerRecord): Promise<void> {
  await checkValue(topic, readValue(topic, value))
}

function refusal(id: DeadLetterId, why: string): DeadLetterStoreError {
  return new DeadLetterStoreError('INVALID_REQUEST', `Cannot redrive the edited letter ${id}: ${why}`)
}
