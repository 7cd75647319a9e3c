import { expect, expectTypeOf, test } from 'vitest'
import { z } from 'zod'
import { defineApp } from '../../src/app.ts'
import { createRouter } from '../../src/router.ts'
import { defineTopic, narrowTopic } from '../../src/topic.ts'

const github = defineTopic('github', z.looseObject({ action: z.string().optional() }), { maxRecordBytes: 5000 })
const issues = narrowTopic(github, z.object({ issue: z.object({ number: z.number() }) }))

test('a narrowed topic is the topic with another schema: routes of one topic may each have their own', () => {
  const router = createRouter()
    .on({ topic: issues, headers: { event: 'issues' } }, (record) => {
      expectTypeOf(record.value).toEqualTypeOf<{ issue: { number: number } }>()
    })
    .on({ topic: github, headers: { event: 'ping' } }, () => undefined)

  const app = defineApp({ groupId: 'g', router })

  expect(issues).toMatchObject({ name: 'github', maxRecordBytes: 5000 })
  expect(app.topics.get('github')).toBe(github)
  expect(app.subscription).toEqual(['github'])
})

test('two definitions of one name are still refused', () => {
  const twin = defineTopic('github', 'json')

  expect(() => defineApp({ groupId: 'g', topics: [github, issues, twin] })).toThrow('defined 2 times')
})
