/** Bugs that a product like this one has had, each with what the checker is to call it. */
import type { ViolationKind } from '../history/history.ts'

/** One of them. */
export type Bug =
  | 'acknowledged before durable'
  | 'commit before handle'
  | 'position advanced on response'
  | 'offset reuse'
  | 'reorder on retry'
  | 'drop on rebalance'
  | 'duplicate on retry'
  | 'dead letter after commit'
  | 'dead letter lost'
  | 'dead letter twice'
  | 'wrong bytes'
  | 'stale-holder commit accepted'
  | 'tombstone as empty text'
  | 'retention past committed offset'
  | 'refused record stored'
  | 'two holders'
  | 'commit lost in a crash'
  | 'committed offset taken back'
  | 'committed records again'
  | 'record left out of an answer'

/** What each bug is to be found as: by one of these at least. */
export const bugs: Readonly<Record<Bug, readonly ViolationKind[]>> = {
  'acknowledged before durable': ['lost', 'offset reused'],
  'commit before handle': ['committed ahead'],
  'position advanced on response': ['skipped', 'committed ahead', 'lost'],
  'offset reuse': ['lost', 'offset reused', 'not as written'],
  'reorder on retry': ['reordered'],
  'drop on rebalance': ['skipped', 'committed ahead', 'lost'],
  'duplicate on retry': ['written twice'],
  'dead letter after commit': ['committed ahead'],
  'dead letter lost': ['letter lost'],
  'dead letter twice': ['letter twice'],
  'wrong bytes': ['not as written'],
  'stale-holder commit accepted': ['stale commit', 'commit lost'],
  'tombstone as empty text': ['not as written'],
  'retention past committed offset': ['lost'],
  'refused record stored': ['refused but there'],
  'two holders': ['two holders'],
  'commit lost in a crash': ['commit lost'],
  'committed offset taken back': ['committed back', 'commit lost'],
  'committed records again': ['came again'],
  'record left out of an answer': ['gap', 'skipped'],
}
