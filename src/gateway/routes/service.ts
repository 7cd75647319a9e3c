/** The gateway about itself: that it lives, that it serves. */
import * as z from 'zod'
import { GatewayError } from '../../errors.ts'
import { defineRoute, type Route } from '../route.ts'
import { ResultOut } from '../schemas.ts'
import { success } from '../success.ts'

const READY_TIMEOUT_MS = 5000

/** `/` */
export const root: Route = defineRoute({
  methods: ['GET'],
  path: '/',
  operationId: 'root',
  summary: 'What this is',
  access: 'public',
  answers: { 200: z.object({ name: z.literal('kedge'), openapi: z.string(), docs: z.string() }) },
  handle: () => ({ json: { name: 'kedge', openapi: '/openapi.json', docs: '/docs' } }),
})

/** `/healthz` */
export const healthz: Route = defineRoute({
  methods: ['GET'],
  path: '/healthz',
  operationId: 'healthz',
  summary: 'Answers while the process lives',
  access: 'public',
  answers: { 200: ResultOut },
  handle: () => success,
})

/** `/readyz` */
export const readyz: Route = defineRoute({
  methods: ['GET'],
  path: '/readyz',
  operationId: 'readyz',
  summary: 'Answers 200 while every other call will be served',
  access: 'public',
  answers: { 200: ResultOut },
  async handle(_input, { broker, waiting }) {
    if (waiting.draining) {
      throw new GatewayError('CLOSED', 'The gateway is closing: use another or try again later.', {
        retriable: true,
        retryAfterMs: 1000,
      })
    }
    await broker.topics({ timeoutMs: READY_TIMEOUT_MS })
    return success
  },
})
