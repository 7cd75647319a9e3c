/**
 * Calls of operators over REST, beside those of the dialect. They are rows of the gateway's table like all others; the gateway
 * itself knows no behaviour, so whoever starts it hands them in.
 */
import type { App } from '../app.ts'
import type { Clock } from '../clock.ts'
import type { DeadLetterStore } from '../dead-letter.ts'
import type { Route } from '../gateway/route.ts'
import type { Log } from '../logger.ts'
import type { Random } from '../random.ts'
import { operationsRoutes } from './operations.ts'
import { redriveRoutes } from './redrive.ts'

/** What operators' calls work with, beside the gateway's broker. */
export interface OperatorServices {
  /** The store of the dead letters. Asked at each call; opening it once is the giver's. Rejects with what opening it does. */
  readonly openDeadLetters: () => Promise<DeadLetterStore>
  /** The app of a group, where the gateway has it. */
  readonly appOf: (groupId: string) => Promise<App | undefined>
  readonly clock: Clock
  readonly random: Random
  /** Takes a line when something that changes anything begins and ends, with who did what. */
  readonly log: Log
}

/** The rows, in the order in which the contract shows them. Each takes the verb `operate` on the group of its path. */
export function operatorRoutes(services: OperatorServices): readonly Route[] {
  return [...redriveRoutes(services), ...operationsRoutes(services)]
}
