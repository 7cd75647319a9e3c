/** What a gateway's process hands in for operators: the store of the dead letters, opened when it is first asked for, and the app. */
import type { App } from '../app.ts'
import type { Broker } from '../broker.ts'
import { systemClock } from '../clock.ts'
import type { DeadLetterStore } from '../dead-letter.ts'
import { ConfigError } from '../errors.ts'
import { operatorRoutes } from '../operator/routes.ts'
import type { Route } from '../gateway/route.ts'
import { systemRandom } from '../random.ts'
import { deadLetterDrivers } from './dead-letter-drivers.ts'
import { consoleLog } from './log-line.ts'
import { openDeadLetters, topicDriver } from './open-dead-letters.ts'

/** Where the dead letters are, and whose they are. */
export interface OperatorOptions {
  readonly broker: Broker
  /** As KEDGE_DEAD_LETTERS has it. */
  readonly deadLetters: string
  /** The app that runs beside the gateway. Asked for at each call that needs it. @default none: letters cannot be edited */
  readonly loadApp?: (() => Promise<App>) | undefined
}

/** The calls of operators, and what they opened. */
export interface Operator {
  readonly routes: readonly Route[]
  /** Closes the store, where one was opened. */
  close(): Promise<void>
}

/**
 * Opens nothing yet: a setting that only the functions can follow, as `d1:BINDING`, must not keep the gateway from starting.
 * The calls that need the store say then what is wrong.
 */
export function openOperator({ broker, deadLetters, loadApp }: OperatorOptions): Operator {
  let opened: Promise<DeadLetterStore> | undefined
  const open = async (): Promise<DeadLetterStore> => {
    opened ??= openDeadLetters(deadLetters, {
      topic: topicDriver(broker),
      ...deadLetterDrivers,
    })
    try {
      return await opened
    } catch (failure) {
      opened = undefined
      throw failure
    }
  }
  const routes = operatorRoutes({
    openDeadLetters: open,
    appOf: async (groupId) => {
      const app = await loaded(loadApp)
      return app?.groupId === groupId ? app : undefined
    },
    clock: systemClock,
    random: systemRandom,
    log: consoleLog,
  })
  return {
    routes,
    async close() {
      // One that could not be opened needs no closing.
      const store = await opened?.catch(() => undefined)
      await store?.close()
    },
  }
}

async function loaded(loadApp: OperatorOptions['loadApp']): Promise<App | undefined> {
  try {
    return await loadApp?.()
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new ConfigError(`Cannot load the app: ${reason}`, { cause })
  }
}
