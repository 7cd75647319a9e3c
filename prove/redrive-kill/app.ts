/** The app whose dead letters are redriven: the command line takes it from here, and the proof runs its consumer. */
import { type App, defineApp } from '../../src/app.ts'
import type { ConsumerRecord } from '../../src/record.ts'
import { createRouter } from '../../src/router.ts'

/** Where the records were that could not be handled. */
export const SOURCE = 'work'
/** Whose letters they are. */
export const GROUP = 'crew'
/** Through which they come back. */
export const REDRIVE_TOPIC: string = `${SOURCE}.${GROUP}-redrive`

/** The app with its handler. */
export function appWith(handle: (record: ConsumerRecord) => void): App {
  return defineApp({ groupId: GROUP, router: createRouter().on({ topic: SOURCE }, handle), redrive: true })
}

/** As the command line reads it: it calls no handler. */
export const app: App = appWith(() => undefined)
