/** Record headers: an ordered list in which a key may come more than once. The last one speaks for its key, as in Kafka. */
import { bytesOf, exactTextOf } from './record.ts'
import type { Header } from './record.ts'

/** Headers as a caller may write them: a plain object, or a list where order and duplicates matter. */
export type HeadersInput =
  | Readonly<Record<string, string | Uint8Array | null>>
  | readonly { readonly key: string; readonly value: string | Uint8Array | null }[]

/** The headers as they are stored: texts become their UTF-8 bytes, order and duplicates stay. */
export function headersOf(input: HeadersInput): Header[] {
  const list = isList(input) ? input : Object.entries(input).map(([key, value]) => ({ key, value }))
  return list.map(({ key, value }) => ({ key, value: typeof value === 'string' ? bytesOf(value) : value }))
}

/** The last header with this key, or undefined. */
export function lastHeader(headers: readonly Header[], key: string): Header | undefined {
  for (let index = headers.length - 1; index >= 0; index--) {
    const header = headers[index]
    if (header?.key === key) return header
  }
  return undefined
}

/** The text of the last header with this key; undefined where there is none, its value is null, or it is not UTF-8. */
export function headerText(headers: readonly Header[], key: string): string | undefined {
  const value = lastHeader(headers, key)?.value
  return value === undefined || value === null ? undefined : exactTextOf(value)
}

/** Bytes of all keys and values, as record limits count them. */
export function headersBytes(headers: readonly Header[]): number {
  let bytes = 0
  for (const { key, value } of headers) bytes += utf8Length(key) + (value?.length ?? 0)
  return bytes
}

function isList(input: HeadersInput): input is Extract<HeadersInput, readonly unknown[]> {
  return Array.isArray(input)
}

/** Counts without encoding: header keys are short and nearly always ASCII. */
function utf8Length(text: string): number {
  let bytes = 0
  for (const character of text) {
    const point = character.codePointAt(0) ?? 0
    bytes += point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x1_0000 ? 3 : 4
  }
  return bytes
}
