/**
 * Every bound the gateway puts on a request, by the name that goes out as `Kedge-Limit`. Nothing is buffered or parsed
 * past its limit. Two are not refusals but caps: a longer `timeout` or a larger `maxRecords`/`maxBytes` than the server
 * serves is legal, since each of them says "at most".
 */
export interface GatewayLimits {
  /** Bytes of a request's body. @default 16777216, answered 413 */
  readonly bodyBytes: number
  /** Records in one produce, or entries of any list that is a whole body. @default 10000, answered 413 */
  readonly batchRecords: number
  /** Bytes of one record's key, value and headers, whatever its topic allows. @default 10485760, answered 413 */
  readonly recordBytes: number
  /** Headers of one record. @default 256, answered 413 */
  readonly recordHeaders: number
  /** Depth of nesting in a JSON body. @default 64, answered 400 */
  readonly jsonDepth: number
  /** Items of one list, or members of one object, in a JSON body. @default 100000, answered 413 */
  readonly jsonItems: number
  /** Header lines of an HTTP request. @default 100, answered 431 */
  readonly httpHeaders: number
  /** Bytes of an HTTP request's line and headers (node runtime). @default 16384, answered 431 */
  readonly httpHeaderBytes: number
  /** Consumes and fetches that may wait at once. @default 2000, answered 429 */
  readonly waitingPolls: number
  /** Cap: longest wait of a consume or fetch, milliseconds. @default 300000 */
  readonly maxWaitMs: number
  /** Cap: most records in one answer. @default 10000 */
  readonly maxRecords: number
  /** Cap: most bytes of keys, values and headers in one answer. @default 16777216 */
  readonly maxBytes: number
}

/** What holds where nothing else is said. */
export const gatewayLimits: GatewayLimits = Object.freeze({
  bodyBytes: 16_777_216,
  batchRecords: 10_000,
  recordBytes: 10_485_760,
  recordHeaders: 256,
  jsonDepth: 64,
  jsonItems: 100_000,
  httpHeaders: 100,
  httpHeaderBytes: 16_384,
  waitingPolls: 2000,
  maxWaitMs: 300_000,
  maxRecords: 10_000,
  maxBytes: 16_777_216,
})

/** The limits that refuse; the other three cap. */
export type RefusingLimit = Exclude<keyof GatewayLimits, 'maxWaitMs' | 'maxRecords' | 'maxBytes'>

/** The names of the limits as they go over the wire in `Kedge-Limit`. */
export const limitNames: Readonly<Record<RefusingLimit, string>> = {
  bodyBytes: 'body-bytes',
  batchRecords: 'batch-records',
  recordBytes: 'record-bytes',
  recordHeaders: 'record-headers',
  jsonDepth: 'json-depth',
  jsonItems: 'json-items',
  httpHeaders: 'http-headers',
  httpHeaderBytes: 'http-header-bytes',
  waitingPolls: 'waiting-polls',
}

/** Kafka's default `max.poll.records`. */
export const DEFAULT_MAX_RECORDS = 500
/** Most bytes of an answer where the request names no `maxBytes`: a fifth of Kafka's `fetch.max.bytes`, since here it is held as JSON. */
export const DEFAULT_MAX_BYTES = 10_485_760
