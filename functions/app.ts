/**
 * The application, free of any platform: its topics, its handlers, its routes. This is the file to edit. The Worker
 * (worker.ts) and the Lambda functions (produce.ts, consume.ts) run it as it is; `npm start` takes edits over at once.
 */
import * as z from 'zod'
import { type App, defineApp } from '../src/app.ts'
import { createRouter } from '../src/router.ts'
import { defineTopic } from '../src/topic.ts'

// What an order is. The produce function refuses anything else, and a handler never sees anything else.
const orders = defineTopic('orders', z.object({ id: z.string(), total: z.number() }))

// Which handler gets which record. Returning means handled; throwing means: try again, and in the end a dead letter.
const router = createRouter()
  .on(orders, async (order, context) => {
    context.log('shipping', { order: order.value.id })
  })
  .otherwise('dead-letter')

/** A consumer group with its topics and routes. Its dead letters can be handed back: `npm run redrive`. */
export const app: App = defineApp({ groupId: 'shop', topics: [orders], router, redrive: true })
