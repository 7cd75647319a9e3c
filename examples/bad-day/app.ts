/** The application of the example: each order is paid for at a service that may be down. */
import * as z from 'zod'
import { type App, createRouter, defineApp, defineTopic, type Topic } from '../../src/index.ts'

/** What an order is. */
export const orders: Topic<{ id: string; total: number }> = defineTopic(
  'orders',
  z.object({ id: z.string(), total: z.number() }),
)

/** The app, over a payment service. Its dead letters can be handed back. */
export function badDayApp(paymentsUrl: string): App {
  const router = createRouter().on(
    orders,
    async (order, { signal }) => {
      const answer = await fetch(`${paymentsUrl}/${order.value.id}`, { method: 'POST', signal })
      if (!answer.ok) throw new Error(`The payment service answered ${answer.status}.`)
    },
    { name: 'pay', retry: { maxAttempts: 2, initialMs: 10 } },
  )
  return defineApp({ groupId: 'shop', router, redrive: true })
}
