import * as v from 'valibot'
import { describe, expectTypeOf, test } from 'vitest'
import { z } from 'zod'

import type { Producer, RecordInput } from '../../src/producer.ts'
import type { ConsumerRecord } from '../../src/record.ts'
import { createRouter } from '../../src/router.ts'
import type { HandlerContext, RouteMatch } from '../../src/router.ts'
import { defineTopic } from '../../src/topic.ts'
import type { Topic } from '../../src/topic.ts'

const orders = defineTopic('orders', z.object({ id: z.string(), total: z.coerce.number().default(0) }))
const visits = defineTopic('visits', v.object({ at: v.pipe(v.string(), v.transform(Number)) }))
const lines = defineTopic('lines', 'text')
const images = defineTopic('images', 'bytes')
const anything = defineTopic('anything', 'json')
const profiles = defineTopic('profiles', z.object({ name: z.string() }), { tombstones: true })

/** Never called: what it holds is for the compiler. */
function check(_run: (producer: Producer) => void): void {}

describe('topic types', () => {
  test('a zod topic takes its input and gives its output', () => {
    expectTypeOf(orders).toEqualTypeOf<Topic<{ id: string; total?: unknown }, { id: string; total: number }>>()
  })

  test('a valibot topic takes its input and gives its output', () => {
    expectTypeOf(visits).toEqualTypeOf<Topic<{ at: string }, { at: number }>>()
  })

  test('a topic by format takes and gives the format', () => {
    expectTypeOf(lines).toEqualTypeOf<Topic<string>>()
    expectTypeOf(images).toEqualTypeOf<Topic<Uint8Array>>()
    expectTypeOf(anything).toEqualTypeOf<Topic>()
  })

  test('a topic with tombstones takes and gives null', () => {
    expectTypeOf(profiles).toEqualTypeOf<Topic<{ name: string } | null>>()
  })

  test('a handler gets the output of its topic', () => {
    createRouter()
      .on(orders, (record, context) => {
        expectTypeOf(record).toEqualTypeOf<ConsumerRecord<{ id: string; total: number }>>()
        expectTypeOf(context).toEqualTypeOf<HandlerContext>()
      })
      .on({ topic: visits, key: 'k' }, async (record) => {
        expectTypeOf(record.value).toEqualTypeOf<{ at: number }>()
      })
      .on({ topic: profiles, headers: { a: 'b' }, value: { name: 'x' } }, (record) => {
        expectTypeOf(record.value).toEqualTypeOf<{ name: string } | null>()
      })
      .on({ topic: 'reports', key: 'App\\Reports' }, (record) => {
        expectTypeOf(record.value).toEqualTypeOf<Uint8Array | null>()
      })
      .otherwise((record) => {
        expectTypeOf(record.value).toEqualTypeOf<Uint8Array | null>()
      })
  })

  test('a batch handler gets records with the output of its topic', () => {
    createRouter()
      .onBatch(orders, (records, context) => {
        expectTypeOf(records).toEqualTypeOf<readonly ConsumerRecord<{ id: string; total: number }>[]>()
        expectTypeOf(context).toEqualTypeOf<HandlerContext>()
      })
      .onBatch(
        { topic: profiles, value: { name: 'x' } },
        async (records) => {
          expectTypeOf(records[0]?.value).toEqualTypeOf<{ name: string } | null | undefined>()
        },
        { maxBatchRecords: 10, ordering: 'key' },
      )
      .onBatch({ topic: 'reports' }, (records) => {
        expectTypeOf(records).toEqualTypeOf<readonly ConsumerRecord[]>()
      })
    const wrong = (_records: readonly ConsumerRecord<number>[]): void => undefined
    // @ts-expect-error orders have no numbers as values
    createRouter().onBatch(orders, wrong)
    // @ts-expect-error a handler of one record takes no batch
    createRouter().onBatch(orders, (record: ConsumerRecord<{ id: string; total: number }>) => record.value.id)
    // @ts-expect-error single records come in no batch
    createRouter().on(orders, () => undefined, { maxBatchRecords: 10 })
  })

  test('a handler of another type is refused', () => {
    const wrong = (_record: ConsumerRecord<number>): void => undefined
    // @ts-expect-error orders have no numbers as values
    createRouter().on(orders, wrong)
    // @ts-expect-error a match needs a topic
    const untopical: RouteMatch = { key: 'a' }

    expectTypeOf(untopical).toEqualTypeOf<RouteMatch>()
  })

  test('produce takes the input of its topic', () => {
    check((producer) => {
      void producer.produce(orders, { id: 'a' }, { key: 'a', idempotencyKey: 'k' })
      void producer.produce(profiles, null)
      void producer.produceMany(lines, [
        { value: 'a', headers: { a: 'b' } },
        { value: 'b', partition: 1 },
      ])
      // @ts-expect-error the id is missing
      void producer.produce(orders, { total: 1 })
      // @ts-expect-error no tombstones here
      void producer.produce(orders, null)
      // @ts-expect-error a text topic takes no bytes
      void producer.produce(lines, new Uint8Array())
      // @ts-expect-error a text topic takes no numbers
      void producer.produceMany(lines, [{ value: 1 }])
    })
    expectTypeOf<RecordInput<string>['value']>().toEqualTypeOf<string>()
  })
})
