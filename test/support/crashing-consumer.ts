/**
 * One run of a consumer in a process of its own, through a gateway, that does not survive the record `bad`:
 * `crashing-consumer.ts URL HOW`. It prints what it begins and has handled, and at its end its report. HOW it ends at `bad`:
 * `signal`, `memory` (run it with little of that), `exit`, or `loop`, of which somebody has to put it out.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { defineApp } from '../../src/app.ts'
import { restBroker } from '../../src/brokers/rest.ts'
import { createConsumer } from '../../src/consumer.ts'
import { topicDeadLetters } from '../../src/dead-letters/topic.ts'
import { textOf } from '../../src/record.ts'
import { createRouter } from '../../src/router.ts'

const [url = '', how = ''] = process.argv.slice(2)

const ends: Readonly<Record<string, () => unknown>> = {
  signal: () => process.kill(process.pid, 'SIGKILL'),
  exit: () => process.exit(1),
  memory: () => {
    const kept: number[][] = []
    for (;;) kept.push(Array.from({ length: 10_000 }, Math.random))
  },
  loop: () => {
    for (;;);
  },
}

const router = createRouter().on({ topic: 'orders' }, async ({ value }) => {
  const name = textOf(value)
  console.log(`begins ${name}`)
  if (name === 'bad') await ends[how]?.()
  console.log(`handled ${name}`)
})

const broker = restBroker({ url })
const consumer = createConsumer(defineApp({ groupId: 'shop', router }), {
  broker,
  deadLetters: topicDeadLetters({ broker }),
  groupInstanceId: 'one',
  // A process that stands still for longer, on a busy machine, is one that died for all that anybody can tell.
  claimTtlMs: 5_000,
})
for (;;) {
  const report = await consumer.run({ runId: crypto.randomUUID(), stopWhenEmpty: true })
  if (report.ended === 'claim-held') {
    await sleep(report.retryAfterMs)
    continue
  }
  console.log(JSON.stringify(report))
  break
}
await broker.close()
