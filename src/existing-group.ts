/** Whether there is a group at all: a name that is misspelt gets its error before anything is done under it. */
import type { Broker, Call } from './broker.ts'
import { BrokerError } from './errors.ts'

/** Which group, and for what. */
export interface ExistingGroupScope {
  readonly broker: Broker
  readonly groupId: string
  /** What it is needed for, for the error: `redrive the dead letters of group shop`. */
  readonly task: string
  readonly calls: { make<T>(work: (call: Call) => Promise<T>): Promise<T> }
}

/**
 * Makes sure that the broker knows a group, by members or committed offsets.
 * @throws {BrokerError} GROUP_ID_NOT_FOUND · as the broker does
 */
export async function requireGroup({ broker, groupId, task, calls }: ExistingGroupScope): Promise<void> {
  const groups = await calls.make((call) => broker.groups(call))
  if (groups.some((group) => group.groupId === groupId)) return
  throw new BrokerError(
    'GROUP_ID_NOT_FOUND',
    `Cannot ${task}: the broker has no such group, with neither members nor committed offsets. Check the name, or run its app first.`,
  )
}
