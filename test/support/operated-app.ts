/** An app that a process of a test operates on: its group heeds operators. */
import { defineApp } from '../../src/app.ts'
import type { App } from '../../src/app.ts'
import { StopError } from '../../src/handler-errors.ts'
import { textOf } from '../../src/record.ts'
import { createRouter } from '../../src/router.ts'

/** Stops at records whose value is `poison`. */
export const app: App = defineApp({
  groupId: 'shop',
  operations: true,
  redrive: true,
  router: createRouter().on({ topic: 'orders' }, ({ value }) => {
    if (textOf(value) === 'poison') throw new StopError('nobody can read it')
  }),
})
