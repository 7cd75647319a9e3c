import * as fc from 'fast-check'
import { expect, test } from 'vitest'
import { headersOf, headerText } from '../../src/headers.ts'
import { bytesOf, exactTextOf } from '../../src/record.ts'
import type { ConsumerRecord } from '../../src/record.ts'
import { ambiguities, compileRoutes } from '../../src/route-table.ts'
import { createRouter, matchTopicName } from '../../src/router.ts'
import type { Route, RouteMatch } from '../../src/router.ts'

const word = fc.constantFrom('a', 'b', 'c')
const some = <T>(values: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> => fc.option(values, { nil: undefined })
const matches = fc
  .record({
    topic: fc.constantFrom('t', 'u'),
    key: some(fc.option(word)),
    headers: some(fc.dictionary(fc.constantFrom('h', 'i'), word, { minKeys: 1 })),
    value: some(fc.dictionary(fc.constantFrom('f', 'g'), fc.constantFrom('a', 1, true, null), { minKeys: 1 })),
  })
  .map(({ topic, key, headers, value }): RouteMatch => ({
    topic,
    ...(key === undefined ? {} : { key }),
    ...(headers === undefined ? {} : { headers }),
    ...(value === undefined ? {} : { value }),
  }))
const records = fc
  .record({
    topic: fc.constantFrom('t', 'u', 'v'),
    key: fc.option(word),
    headers: fc.array(fc.record({ key: fc.constantFrom('h', 'i'), value: word }), { maxLength: 3 }),
    value: fc.dictionary(fc.constantFrom('f', 'g'), fc.constantFrom('a', 1, true, null)),
  })
  .map(({ topic, key, headers, value }): ConsumerRecord => ({
    topic,
    partition: 0,
    offset: 0,
    timestampMs: 0,
    key: key === null ? null : bytesOf(key),
    headers: headersOf(headers),
    value: bytesOf(JSON.stringify(value)),
  }))

function routesOf(all: readonly RouteMatch[]): readonly Route[] {
  const router = createRouter()
  for (const [index, match] of all.entries()) router.on(match, () => undefined, { name: `r${index}` })
  return router.routes
}

function conditionsOf({ key, headers = {}, value = {} }: RouteMatch): number {
  return (key === undefined ? 0 : 1) + Object.keys(headers).length + Object.keys(value).length
}

/** The definition, without any table: all conditions hold. */
function meets(record: ConsumerRecord, { topic, key, headers = {}, value = {} }: RouteMatch): boolean {
  const fields = JSON.parse(exactTextOf(record.value ?? bytesOf('null')) ?? 'null') as Record<string, unknown>
  const recordKey = record.key === null ? null : exactTextOf(record.key)
  return (
    record.topic === topic &&
    (key === undefined || key === recordKey) &&
    Object.entries(headers).every(([name, text]) => headerText(record.headers, name) === text) &&
    Object.entries(value).every(([name, field]) => Object.hasOwn(fields, name) && fields[name] === field)
  )
}

test('the table finds the route with the most conditions, and a tie is always announced as an ambiguity', () => {
  fc.assert(
    fc.property(fc.array(matches, { maxLength: 8 }), fc.array(records, { maxLength: 8 }), (all, read) => {
      const routes = routesOf(all)
      const announced = ambiguities(routes).map((pair) => pair.map(({ name }) => name).join())
      const table = compileRoutes(routes)

      for (const record of read) {
        const met = routes.filter(({ match }) => meets(record, match))
        const most = Math.max(...met.map(({ match }) => conditionsOf(match)))
        const best = met.filter(({ match }) => conditionsOf(match) === most).map(({ name }) => name)
        const found = table.find(record)

        expect(found === undefined ? [] : [found]).toHaveLength(Math.min(1, best.length))
        expect([...best, undefined]).toContain(
          found === undefined || found === 'unreadable' ? undefined : found.route.name,
        )
        expect(best.length < 2 || announced.includes(best.slice(0, 2).join())).toBe(true)
      }
    }),
    { numRuns: 1_000 },
  )
})

test('what is announced as an ambiguity is one: some record takes both routes', () => {
  fc.assert(
    fc.property(fc.array(matches, { maxLength: 6 }), (all) => {
      for (const [a, b] of ambiguities(routesOf(all))) {
        const value = { ...a.match.value, ...b.match.value }
        const key = a.match.key ?? b.match.key ?? null
        const record: ConsumerRecord = {
          topic: matchTopicName(a.match),
          partition: 0,
          offset: 0,
          timestampMs: 0,
          key: key === null ? null : bytesOf(key),
          headers: headersOf({ ...a.match.headers, ...b.match.headers }),
          value: bytesOf(JSON.stringify(value)),
        }

        expect([meets(record, a.match), meets(record, b.match)]).toEqual([true, true])
      }
    }),
    { numRuns: 1_000 },
  )
})
