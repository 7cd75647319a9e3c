/** A consumer process whose handlers take a while and say when they begin; for `loop` they never give the event loop back. */
import { setTimeout as sleep } from 'node:timers/promises'
import { defineApp } from '../../src/app.ts'
import { textOf } from '../../src/record.ts'
import { createRouter } from '../../src/router.ts'
import { runConsumer } from '../../src/runtimes/consumer-process.ts'

const router = createRouter().on({ topic: 'orders' }, async ({ value }) => {
  console.log(`begins ${textOf(value)}`)
  while (textOf(value) === 'loop');
  await sleep(1_500)
})

process.exitCode = await runConsumer(defineApp({ groupId: 'shop', router }), process.argv.slice(2), process.env)
console.log(`ended with ${process.exitCode}`)
