/**
 * JSON as the dialect takes it: RFC 8259, and also a comma before a closing bracket, as in Upstash's own examples.
 *
 * `parseJson` differs from `JSON.parse` in two more ways. It stops at a depth, so that hostile nesting costs nothing. And
 * a member named `rawMember` whose value is neither a string nor null is given as the text it was sent as, white space
 * between tokens removed: records carry such values, and `12345678901234567890` or `1e400` must not change on the way.
 */
import type { GatewayError } from '../errors.ts'
import { invalidRequest } from './errors.ts'
import { limitNames } from './limits.ts'

/** A JSON value kept as its text. */
export class RawJson {
  readonly text: string
  constructor(text: string) {
    this.text = text
  }
}

/** How deep to go, and what to keep as text. */
export interface ParseOptions {
  readonly maxDepth: number
  readonly rawMember?: string
}

/** @throws {GatewayError} INVALID_REQUEST with the place of the mistake, or with the limit `json-depth` */
export function parseJson(text: string, options: ParseOptions): unknown {
  const parser = new Parser(text, options)
  return parser.document()
}

/** Bodies up to this size are parsed in no time, whatever is in them. */
const SAFE_LENGTH = 65_536

/** What a JSON text may have at most. */
export interface JsonBounds {
  readonly maxDepth: number
  /** Most items of a list or members of an object. */
  readonly maxItems: number
  /** Most items where the whole text is a list. */
  readonly maxRootItems: number
}

/**
 * The bound that a long JSON text is over, found without parsing it: brackets and commas are counted, strings skipped by
 * search. What parses would cost seconds otherwise, since every item that is wrong is a complaint to be made.
 */
export function boundExceeded(text: string, bounds: JsonBounds): keyof JsonBounds | undefined {
  if (text.length <= SAFE_LENGTH) return undefined
  const items = new Uint32Array(bounds.maxDepth + 1)
  let depth = 0
  let isRootList = false
  for (let at = 0; at < text.length; at += 1) {
    const code = text.charCodeAt(at)
    if (code === QUOTE) {
      at = endOfString(text, at)
      if (at === -1) return undefined
    } else if (code === COMMA) {
      const count = (items[depth] ?? 0) + 1
      items[depth] = count
      if (depth === 1 && isRootList) {
        if (count >= bounds.maxRootItems && !isTrailingComma(text, at)) return 'maxRootItems'
      } else if (count >= bounds.maxItems) return 'maxItems'
    } else if (code === OPEN_OBJECT || code === OPEN_ARRAY) {
      if (depth === 0) isRootList = code === OPEN_ARRAY
      depth += 1
      if (depth > bounds.maxDepth) return 'maxDepth'
      items[depth] = 0
    } else if (code === CLOSE_OBJECT || code === CLOSE_ARRAY) {
      // Text with too many of them is no JSON; its parser says so.
      if (depth === 0) return undefined
      depth -= 1
    }
  }
  return undefined
}

function isTrailingComma(text: string, at: number): boolean {
  return /^\s*\]/.test(text.slice(at + 1, at + 1000))
}

const QUOTE = 0x22
const BACKSLASH = 0x5c
const COMMA = 0x2c
const OPEN_OBJECT = 0x7b
const CLOSE_OBJECT = 0x7d
const OPEN_ARRAY = 0x5b
const CLOSE_ARRAY = 0x5d

/** Index of the quote that ends the string which begins at `start`, or -1. */
function endOfString(text: string, start: number): number {
  let end = text.indexOf('"', start + 1)
  while (end !== -1) {
    let slashes = 0
    while (text.charCodeAt(end - 1 - slashes) === BACKSLASH) slashes += 1
    if (slashes % 2 === 0) return end
    end = text.indexOf('"', end + 1)
  }
  return -1
}

const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y
const SPACE = /[ \t\n\r]*/y
const WORDS: readonly (readonly [string, unknown])[] = [
  ['true', true],
  ['false', false],
  ['null', null],
]

class Parser {
  readonly #text: string
  readonly #maxDepth: number
  readonly #rawMember: string | undefined
  #at = 0
  #depth = 0

  constructor(text: string, options: ParseOptions) {
    this.#text = text
    this.#maxDepth = options.maxDepth
    this.#rawMember = options.rawMember
  }

  document(): unknown {
    this.#space()
    const value = this.#value()
    this.#space()
    if (this.#at < this.#text.length) throw this.#mistake('more text after the end of the JSON value')
    return value
  }

  #value(): unknown {
    const code = this.#text.charCodeAt(this.#at)
    if (code === QUOTE) return this.#string()
    if (code === OPEN_OBJECT) return this.#nested(() => this.#object())
    if (code === OPEN_ARRAY) return this.#nested(() => this.#array())
    for (const [word, value] of WORDS) {
      if (this.#text.startsWith(word, this.#at)) {
        this.#at += word.length
        return value
      }
    }
    NUMBER.lastIndex = this.#at
    const number = NUMBER.exec(this.#text)?.[0]
    if (number === undefined) throw this.#mistake('a JSON value was expected')
    this.#at += number.length
    return Number(number)
  }

  #nested<T>(read: () => T): T {
    this.#depth += 1
    if (this.#depth > this.#maxDepth) throw tooDeep(this.#maxDepth)
    this.#at += 1
    const value = read()
    this.#at += 1
    this.#depth -= 1
    return value
  }

  #object(): Record<string, unknown> {
    const members: [string, unknown][] = []
    this.#space()
    while (this.#text.charCodeAt(this.#at) !== CLOSE_OBJECT) {
      if (this.#text.charCodeAt(this.#at) !== QUOTE) throw this.#mistake('a member name in double quotes was expected')
      const name = this.#string()
      this.#space()
      if (this.#text[this.#at] !== ':') throw this.#mistake('a colon was expected')
      this.#at += 1
      this.#space()
      members.push([name, name === this.#rawMember ? this.#rawValue() : this.#value()])
      this.#comma('}')
    }
    return Object.fromEntries(members)
  }

  #array(): unknown[] {
    const items: unknown[] = []
    this.#space()
    while (this.#text.charCodeAt(this.#at) !== CLOSE_ARRAY) {
      items.push(this.#value())
      this.#comma(']')
    }
    return items
  }

  #rawValue(): unknown {
    const start = this.#at
    const value = this.#value()
    if (typeof value === 'string' || value === null) return value
    return new RawJson(compact(this.#text.slice(start, this.#at)))
  }

  #comma(close: string): void {
    this.#space()
    if (this.#text[this.#at] === ',') {
      this.#at += 1
      this.#space()
    } else if (this.#text[this.#at] !== close) throw this.#mistake(`a comma or ${close} was expected`)
  }

  #string(): string {
    const end = endOfString(this.#text, this.#at)
    if (end === -1) throw this.#mistake('a string does not end')
    const literal = this.#text.slice(this.#at, end + 1)
    try {
      const value = JSON.parse(literal) as string
      this.#at = end + 1
      return value
    } catch {
      throw this.#mistake('a string holds a control character or an unknown escape')
    }
  }

  #space(): void {
    SPACE.lastIndex = this.#at
    this.#at += SPACE.exec(this.#text)?.[0].length ?? 0
  }

  #mistake(what: string): Error {
    return invalidRequest(`Cannot read the body as JSON: ${what} at character ${this.#at}.`)
  }
}

/** The error of JSON that nests too deep. */
export function tooDeep(maxDepth: number): GatewayError {
  return invalidRequest(
    `Cannot read the body: its JSON nests deeper than ${maxDepth} levels. Send flatter JSON, or the value as a string.`,
    limitNames.jsonDepth,
  )
}

/** JSON text without white space and trailing commas between its tokens. */
function compact(text: string): string {
  let out = ''
  for (let at = 0; at < text.length; at += 1) {
    const char = text.charAt(at)
    if (char === '"') {
      const end = endOfString(text, at)
      out += text.slice(at, end + 1)
      at = end
    } else if ((char === '}' || char === ']') && out.endsWith(',')) out = out.slice(0, -1) + char
    else if (!' \t\n\r'.includes(char)) out += char
  }
  return out
}
