/**
 * Paths of the route table: `/produce/{topic}/{message+}`. A part in braces takes one segment, a last part with `+` all
 * that is left. Segments are decoded after the path was split, so an encoded slash never moves a boundary.
 */
import { invalidRequest } from './errors.ts'

/** A path of the route table, taken apart. */
export interface PathPattern {
  readonly path: string
  readonly segments: readonly PathSegment[]
  /** Whether the last segment takes all that is left. */
  readonly open: boolean
}

/** One part of a path: fixed, or the name of what stands there. */
export type PathSegment = { readonly literal: string } | { readonly param: string }

/** Reads a pattern of the route table. */
export function pathPattern(path: string): PathPattern {
  const segments = splitPath(path).map((part): PathSegment => {
    const name = /^\{(\w+)\+?\}$/.exec(part)?.[1]
    return name === undefined ? { literal: part } : { param: name }
  })
  return { path, segments, open: path.endsWith('+}') }
}

/**
 * The parameters of a raw path under a pattern, or undefined where it does not match. One trailing slash is ignored
 * unless it belongs to an open last part. `skip` leading segments belong to whatever the gateway is mounted under.
 *
 * @throws {GatewayError} INVALID_REQUEST when a parameter is not percent-encoded UTF-8
 */
export function matchPath(pattern: PathPattern, path: string, skip = 0): Readonly<Record<string, string>> | undefined {
  const parts = splitPath(path)
  if (skip > 0) parts.splice(0, skip)
  const count = pattern.segments.length
  if (pattern.open ? parts.length < count : parts.length !== count) return undefined
  // Without a prototype, so that a parameter may be called as it likes; this runs for every request.
  const params = Object.create(null) as Record<string, string>
  let index = 0
  for (const segment of pattern.segments) {
    const part = parts[index] ?? ''
    if ('literal' in segment) {
      if (part !== segment.literal) return undefined
    } else if (pattern.open && index === count - 1) {
      params[segment.param] = restOf(path, index + skip)
    } else {
      if (part === '') return undefined
      params[segment.param] = part
    }
    index += 1
  }
  for (const name in params) params[name] = decodeSegment(params[name] ?? '')
  return params
}

/** The path of a request target, without query. */
export function pathOf(target: string): string {
  const end = target.indexOf('?')
  return end === -1 ? target : target.slice(0, end)
}

/** The query of a request target, without its question mark. */
export function queryOf(target: string): string {
  const start = target.indexOf('?')
  return start === -1 ? '' : target.slice(start + 1)
}

/** The pairs of a query, form-decoded. A pair is split at its first `=`: Upstash's passwords end in raw ones. */
export function queryPairs(query: string): Readonly<Record<string, string>> {
  const pairs: [string, string][] = []
  for (const part of query.split('&')) {
    if (part === '') continue
    const at = part.indexOf('=')
    const name = at === -1 ? part : part.slice(0, at)
    const value = at === -1 ? '' : part.slice(at + 1)
    pairs.push([decodeSegment(name.replaceAll('+', ' ')), decodeSegment(value.replaceAll('+', ' '))])
  }
  return Object.fromEntries(pairs)
}

function splitPath(path: string): string[] {
  const parts = path.split('/')
  parts.shift()
  if (parts.length > 1 && parts.at(-1) === '') parts.pop()
  return parts
}

function restOf(path: string, segmentsBefore: number): string {
  let at = 0
  for (let passed = 0; passed <= segmentsBefore; passed += 1) at = path.indexOf('/', at) + 1
  return path.slice(at)
}

function decodeSegment(text: string): string {
  if (!text.includes('%')) return text
  try {
    return decodeURIComponent(text)
  } catch {
    throw invalidRequest(
      'Cannot read the address: a part of it is not percent-encoded UTF-8. Write a percent sign as %25.',
    )
  }
}
