/**
 * The names that options of routes have. One that is misspelt would be taken for absent, and the default for what was meant: so
 * it is refused, where no type has seen to it.
 */
import type { OnceOptions, RouteMatch, RouteOptions } from './router.ts'

/** Every name that options may have. */
export type NamesOf<T> = Readonly<Record<keyof Required<T>, true>>

/** Of a route's conditions. */
export const matchNames: NamesOf<RouteMatch> = { topic: true, key: true, headers: true, value: true }

/** Of what a route settles for itself; `maxBatchRecords` is taken out of it where there is a batch handler. */
export const routeNames: NamesOf<RouteOptions> = {
  name: true,
  attemptTimeoutMs: true,
  retry: true,
  ordering: true,
  concurrency: true,
  delivery: true,
  once: true,
  breaker: true,
}

/** Of how a record is recognised. */
export const onceNames: NamesOf<OnceOptions> = { key: true, keepMs: true, allowNonLinearizable: true }

/** A line for each name that is none of these. `where` ends as the name is to follow: `retry.`. */
export function unknownNames(where: string, given: object | null | undefined, known: object): string[] {
  return Object.keys(given ?? {}).flatMap((name) =>
    Object.hasOwn(known, name) ? [] : [`${where}${name} is no option: choose of ${Object.keys(known).join(', ')}.`],
  )
}
