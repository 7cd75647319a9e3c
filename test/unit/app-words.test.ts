/** What an app is told of options that it cannot mean: a word or a name that is misspelt is not taken for absent. */
import { expect, test } from 'vitest'
import { defineApp } from '../../src/app.ts'
import type { App } from '../../src/app.ts'
import { ConfigError } from '../../src/errors.ts'
import { createRouter } from '../../src/router.ts'

interface Parts {
  readonly app?: object
  readonly route?: object
  readonly match?: object
}

/** An app as plain JavaScript may define it: no type has looked at it. */
function define({ app, route = {}, match }: Parts): App {
  const router = createRouter().on({ topic: 't', ...match }, () => undefined, route)
  return defineApp({ groupId: 'g', router, ...app })
}

function messageOf(parts: Parts): string {
  try {
    define(parts)
  } catch (error) {
    if (error instanceof ConfigError) return error.message
    throw error
  }
  return 'it was taken'
}

test.each<[string, Parts]>([
  ['ordering is "keys": choose of partition, key, none', { route: { ordering: 'keys' } }],
  ['delivery is "exactly-once": choose of at-least-once', { route: { delivery: 'exactly-once' } }],
  ['parking.whenFull is "drop": choose of wait, dead-letter', { app: { parking: { whenFull: 'drop' } } }],
  ['autoOffsetReset is "newest": choose of earliest, latest, none', { app: { autoOffsetReset: 'newest' } }],
  ['onOffsetAnomaly is "ignore": choose of stop, earliest, latest', { app: { onOffsetAnomaly: 'ignore' } }],
  ['redrive is "yes": give true or false', { app: { redrive: 'yes' } }],
  ['operations is 1: give true or false', { app: { operations: 1 } }],
])('a word that means nothing is refused: %s', (message, parts) => {
  expect(messageOf(parts)).toContain(message)
})

test.each<[string, Parts]>([
  ['- retries is no option: choose of groupId,', { app: { retries: {} } }],
  ['- retry.jitter is no option: choose of initialMs,', { app: { retry: { jitter: true } } }],
  ['- breaker.threshold is no option: choose of probes,', { app: { breaker: { threshold: 3 } } }],
  ['- parking.maxKeys is no option: choose of maxRecords,', { app: { parking: { maxKeys: 3 } } }],
  ['- Route t: order is no option: choose of name,', { route: { order: 'key' } }],
  ['- Route t: retry.attempts is no option: choose of initialMs,', { route: { retry: { attempts: 3 } } }],
  ['- Route t: maxBatchRecords is no option: choose of name,', { route: { maxBatchRecords: 3 } }],
  ['- Route t: once.keep is no option: choose of key,', { route: { delivery: 'effectively-once', once: { keep: 3 } } }],
  ['- Route t: the condition header is no option: choose of topic, key, headers, value', { match: { header: {} } }],
])('an option of no name that there is is refused: %s', (message, parts) => {
  expect(messageOf(parts)).toContain(message)
})
