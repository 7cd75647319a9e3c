/**
 * What happened to records and offsets, as clients did and saw it: what they sent, asked for and were told, in that order.
 * Nothing here knows of Kafka or of Kedge; `check.ts` says what may happen.
 */

/** Names a partition: `topic/partition`. */
export type Place = string

/** A record, by its lane (one key of one producer) and its number there. */
export interface Item {
  readonly lane: string
  readonly seq: number
  /** What it holds, as a text that differs where the bytes do; null for a tombstone. Absent where nobody looks. */
  readonly content?: string | null
}

/** A place in a partition. */
export interface At {
  readonly place: Place
  readonly offset: number
}

/** One thing that a client did or was told. `call` names a call, whose beginning and end are two events. */
export type HistoryEvent =
  /** A record is sent, once more or for the first time. Under one idempotency key it is to be stored once. */
  | ({ readonly type: 'sent'; readonly idempotencyKey?: string } & Item)
  | ({ readonly type: 'acknowledged' } & Item & At)
  /** The answer was that the record is not stored, and will not be. */
  | ({ readonly type: 'refused' } & Item)
  /** A poll, a claim or a look at the committed offsets begins; with a run where it may take the claim for it. */
  | { readonly type: 'asked'; readonly call: number; readonly instance?: string; readonly run?: string }
  | {
      readonly type: 'polled'
      readonly call: number
      readonly instance: string
      /** The run that holds the claim since. */
      readonly run?: string
      readonly generationId: number
      /** Undefined where the poll has not joined. */
      readonly assignment: readonly Place[] | undefined
      readonly records: readonly (Item & At)[]
      /** How much longer than its wait it took, milliseconds; negative when it ended early. */
      readonly overMs: number
    }
  /** The claim on an instance was granted or renewed. */
  | { readonly type: 'claimed'; readonly call: number; readonly instance: string; readonly run: string }
  /** A read without a group, from an offset on. */
  | {
      readonly type: 'read'
      readonly place: Place
      readonly from: number
      readonly records: readonly (Item & At)[]
    }
  | ({ readonly type: 'handled' } & At)
  /** The store has answered that it has the record; `content` is what it was given. */
  | ({ readonly type: 'dead-lettered'; readonly content?: string | null } & At)
  | {
      readonly type: 'committing'
      readonly call?: number
      readonly offsets: readonly At[]
    }
  | {
      readonly type: 'committed'
      readonly call?: number
      readonly instance: string
      readonly run?: string
      readonly generationId: number | undefined
      readonly offsets: readonly At[]
    }
  /** Somebody set the offsets by hand, or is known to have moved them back: they may be lower now. */
  | { readonly type: 'reset'; readonly offsets: readonly At[] }
  /** The committed offsets as somebody else reads them. */
  | { readonly type: 'observed'; readonly call: number; readonly offsets: readonly At[]; readonly isLast?: boolean }
  /** A call of the kind failed. `overMs` as above, of polls. */
  | {
      readonly type: 'failed'
      readonly kind: 'produce' | 'poll' | 'claim' | 'commit'
      readonly code: string
      readonly call?: number
      readonly overMs?: number
    }

/** Event of one type. */
export type EventOf<T extends HistoryEvent['type']> = Extract<HistoryEvent, { readonly type: T }>

/** What is there when all is over. */
export interface Remains {
  /** What each partition holds, from its log start on. */
  readonly log: ReadonlyMap<Place, readonly Item[]>
  /** The log start of each partition. @default 0 everywhere */
  readonly starts?: ReadonlyMap<Place, number>
  /** What the dead-letter store holds. @default not looked at */
  readonly letters?: readonly (At & { readonly content?: string | null })[]
}

/** What a history must not have. */
export type ViolationKind =
  | 'lost'
  | 'reordered'
  | 'written twice'
  | 'not as written'
  | 'offset reused'
  | 'refused but there'
  | 'gap'
  | 'skipped'
  | 'committed ahead'
  | 'committed back'
  | 'commit lost'
  | 'stale commit'
  | 'came again'
  | 'two holders'
  | 'letter lost'
  | 'letter twice'
  | 'unknown instance'
  | 'late'

/** One of them, with what it was about. */
export interface Violation {
  readonly kind: ViolationKind
  readonly detail: string
}

/** Takes a violation down. */
export type Say = (kind: ViolationKind, detail: string) => void

/** What a history is held to beside what always holds. */
export interface Expectations {
  /** How much longer than its wait a poll may take, milliseconds. */
  readonly mostOverMs: number
  /**
   * Whether committed offsets may be seen for a moment as they were just before: a coordinator that takes over from a dead one
   * shows what it knows to be on all replicas, and of the newest commits it learns that a little later. In the end all are there.
   * @default false
   */
  readonly mayLookBack?: boolean
  /** Whether a record waits for all before it in its partition. @default true */
  readonly isOrdered?: boolean
  /** Whether there is a group that is to have handled every acknowledged record in the end. @default true */
  readonly isConsumed?: boolean
}

/** A record by its name. */
export function nameOf({ lane, seq }: Item): string {
  return `${lane}#${seq}`
}

/** Whether two looks at a record saw the same. */
export function isSame(one: Item, other: Item): boolean {
  if (one.lane !== other.lane || one.seq !== other.seq) return false
  return one.content === undefined || other.content === undefined || one.content === other.content
}

/** A record as it is spoken of. */
export function describe(item: Item | undefined): string {
  if (item === undefined) return 'nothing'
  return item.content === undefined ? nameOf(item) : `${nameOf(item)} (${JSON.stringify(item.content)})`
}
