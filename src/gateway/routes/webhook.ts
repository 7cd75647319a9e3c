/** `/webhook`: any HTTP request as a record, its body as the value and its own headers as headers. */
import * as z from 'zod'
import type { Header } from '../../record.ts'
import { idempotencyOf } from '../idempotency-key.ts'
import { checkLimits, metadata } from '../records.ts'
import { defineRoute, type Route } from '../route.ts'
import { Metadata, TopicName, WebhookHeaders } from '../schemas.ts'
import type { HeaderLine } from '../request.ts'
import { BrokerError } from '../../errors.ts'

/** Headers that speak of the HTTP hop rather than of the event; the rest becomes the record's. */
const ownNames: ReadonlySet<string> = new Set(
  (
    'a-im age allow alt-svc authorization cache-control connection cookie date dnt expect forwarded from host ' +
    'http2-settings idempotency-key keep-alive max-forwards origin pragma priority range referer te trailer transfer-encoding ' +
    'upgrade upgrade-insecure-requests user-agent via warning x-real-ip x-request-id'
  ).split(' '),
)
const ownPrefixes = [
  'accept',
  'access-control-',
  'content-',
  'if-',
  'proxy-',
  'sec-',
  'x-forwarded-',
  'kedge-',
  'kafka-',
]

/** `/webhook` */
export const webhook: Route = defineRoute({
  methods: ['GET', 'POST'],
  path: '/webhook',
  operationId: 'webhook',
  summary: 'Append the body as it is, with the headers that are not plain HTTP',
  access: 'query',
  query: z.object({ topic: TopicName, user: z.string().optional(), pass: z.string().optional() }),
  headers: WebhookHeaders,
  bodyKind: 'bytes',
  body: z.custom<Uint8Array>(),
  answers: { 200: z.array(Metadata) },
  errors: [
    'UNKNOWN_TOPIC_OR_PARTITION',
    'MESSAGE_TOO_LARGE',
    'INVALID_TOPIC_EXCEPTION',
    'IDEMPOTENCY_KEY_IN_FLIGHT',
    'IDEMPOTENCY_KEY_REUSED',
  ],
  async handle({ query: { topic }, headers, body }, context) {
    const { broker, principal, limits, request } = context
    principal.requireTopics('produce', [topic])
    const record = { topic, key: null, value: body, headers: recordHeaders(request.headerLines()) }
    checkLimits([record], limits)
    const results = await broker.produce([record], await idempotencyOf(headers, context))
    return { json: results.flatMap((result) => (result instanceof BrokerError ? [] : [metadata(result)])) }
  },
})

/** The sender's headers, in their spelling and order, without those of the HTTP hop. */
export function recordHeaders(lines: readonly HeaderLine[]): Header[] {
  return lines.filter(({ name }) => !isHopHeader(name.toLowerCase())).map(({ name, value }) => ({ key: name, value }))
}

function isHopHeader(name: string): boolean {
  return ownNames.has(name) || ownPrefixes.some((prefix) => name.startsWith(prefix))
}
