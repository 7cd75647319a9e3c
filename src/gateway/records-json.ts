/**
 * Records as the dialect shows them, written as JSON in UTF-8: all seven fields, always. The values' bytes go straight into the
 * answer; as one text it would be put together of theirs, looked through for characters to escape, and encoded again.
 */
import { base64Of } from '../base64.ts'
import type { ConsumerRecord, Header } from '../record.ts'
import { showBytes, type Encoding } from './text.ts'

/** What a record's fields take beside key, value and headers, about. */
const FIELDS_BYTES = 140
/** What a byte takes, about: memory that is not used costs collections of garbage. */
const BYTES_PER_BYTE: Readonly<Record<Encoding, number>> = { text: 1.1, base64: 4 / 3 }

/** The records' JSON. */
export function recordsJson(records: readonly ConsumerRecord[], encoding: Encoding): Uint8Array {
  let bytes = 0
  for (const { key, value } of records) bytes += (key?.length ?? 0) + (value?.length ?? 0)
  const size = records.length * FIELDS_BYTES + bytes * BYTES_PER_BYTE[encoding]
  const output = new JsonOutput(Math.ceil(size) + SPARE_BYTES, encoding)
  let topic: string | undefined
  let topicJson = ''
  let before = '['
  for (const record of records) {
    if (record.topic !== topic) {
      topic = record.topic
      topicJson = JSON.stringify(topic)
    }
    const { partition, offset, timestampMs, key, value, headers } = record
    output.text(
      `${before}{"topic":${topicJson},"partition":${partition},"offset":${offset},"timestamp":${timestampMs},"key":`,
    )
    output.bytes(key)
    output.text(',"value":')
    output.bytes(value)
    output.text(',"headers":[')
    if (headers.length > 0) writeHeaders(output, headers)
    output.text(']}')
    before = ','
  }
  output.text(records.length === 0 ? '[]' : ']')
  return output.written
}

function writeHeaders(output: JsonOutput, headers: readonly Header[]): void {
  let before = ''
  for (const { key, value } of headers) {
    output.text(`${before}{"key":${JSON.stringify(key)},"value":`)
    output.bytes(value)
    output.text('}')
    before = ','
  }
}

/** Room is looked for with three bytes for each character, and two for each byte. */
const SPARE_BYTES = 4096

const encoder = new TextEncoder()

const QUOTE = 0x22
const BACKSLASH = 0x5c
/** What follows the backslash, by byte: 0 where the byte stands for itself, 1 where it needs more than that. */
const escapes: Uint8Array = escapeTable()

function escapeTable(): Uint8Array {
  const table = new Uint8Array(256).fill(1, 0, 0x20).fill(1, 0x80)
  for (const [byte, letter] of [
    [QUOTE, '"'],
    [BACKSLASH, '\\'],
    [0x08, 'b'],
    [0x09, 't'],
    [0x0a, 'n'],
    [0x0c, 'f'],
    [0x0d, 'r'],
  ] as const) {
    table[byte] = letter.charCodeAt(0)
  }
  return table
}

/** Grows as it is written to. */
class JsonOutput {
  readonly #encoding: Encoding
  #bytes: Uint8Array
  #at = 0

  constructor(size: number, encoding: Encoding) {
    this.#encoding = encoding
    this.#bytes = new Uint8Array(size)
  }

  get written(): Uint8Array {
    return this.#bytes.subarray(0, this.#at)
  }

  /** Text that is JSON already. */
  text(text: string): void {
    // No character takes more than three bytes for each of its units.
    this.#room(text.length * 3)
    this.#at += encoder.encodeInto(text, this.#bytes.subarray(this.#at)).written
  }

  /** Bytes as a JSON value. */
  bytes(bytes: Uint8Array | null): void {
    if (bytes === null) this.text(this.#encoding === 'base64' ? 'null' : '""')
    else if (this.#encoding === 'base64') this.text(`"${base64Of(bytes)}"`)
    else if (!this.#plain(bytes)) this.text(JSON.stringify(showBytes(bytes, 'text')))
  }

  /** Writes bytes that are ASCII and need at most a backslash each; others leave nothing written. */
  #plain(bytes: Uint8Array): boolean {
    this.#room(bytes.length * 2 + 2)
    const output = this.#bytes
    let at = this.#at
    output[at++] = QUOTE
    for (let index = 0; index < bytes.length; index += 1) {
      const byte = bytes[index] ?? 0
      const escape = escapes[byte] ?? 0
      if (escape === 0) output[at++] = byte
      else if (escape === 1) return false
      else {
        output[at++] = BACKSLASH
        output[at++] = escape
      }
    }
    output[at++] = QUOTE
    this.#at = at
    return true
  }

  #room(bytes: number): void {
    const needed = this.#at + bytes
    if (needed <= this.#bytes.length) return
    const larger = new Uint8Array(Math.max(needed, this.#bytes.length * 2))
    larger.set(this.written)
    this.#bytes = larger
  }
}
