/** What the recorded program tells of itself. */
import type { Item } from '../history/history.ts'

/** The topic that it writes to. */
export const TOPIC = 'power'
/** Its partitions. */
export const PARTITIONS = 2
/** Producers, each of which writes to one partition. */
export const LANES: readonly string[] = ['a', 'b', 'c']
/** The group whose offsets it commits. */
export const GROUP = 'g'

/** A line of its own. */
export type Told =
  | { readonly what: 'created' }
  | ({ readonly what: 'sent' } & Item)
  | ({ readonly what: 'acknowledged'; readonly partition: number; readonly offset: number } & Item)
  | { readonly what: 'committing'; readonly partition: number; readonly offset: number }
  | { readonly what: 'committed'; readonly partition: number; readonly offset: number }
