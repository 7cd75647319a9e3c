/** Turns whatever was thrown into data: bounded, and with credentials blotted out. */
import type { DeadLetterCause } from '../dead-letter.ts'
import { MAX_CAUSE_BYTES } from '../dead-letter.ts'
import { HandlerError, KedgeError } from '../errors.ts'
import { bytesOf } from '../record.ts'
import type { RunCause } from './report.ts'
import { withoutSecrets } from './secrets.ts'

const MAX_NAME_BYTES = 100
const MAX_CODE_BYTES = 100
const MAX_MESSAGE_BYTES = 2_000
/** What a fully used cause leaves for its stack. */
const MAX_STACK_BYTES: number = MAX_CAUSE_BYTES - MAX_NAME_BYTES - MAX_CODE_BYTES - MAX_MESSAGE_BYTES

/** Describes a thrown thing for a dead letter: at most 4 KiB of UTF-8 in all. Never throws. */
export function deadLetterCauseOf(given: unknown): DeadLetterCause {
  const thrown = asSeen(given)
  const cause = runCauseOf(thrown)
  const stack = read(thrown, 'stack')
  // The stack of a schema error only names Kedge's own lines.
  if (typeof stack !== 'string' || thrown instanceof KedgeError) return cause
  return { ...cause, stack: shortened(withoutSecrets(stack), MAX_STACK_BYTES) }
}

/** Describes a thrown thing for a report. Never throws. */
export function runCauseOf(thrown: unknown): RunCause {
  const code = read(thrown, 'code')
  return {
    name: shortened(nameOf(thrown), MAX_NAME_BYTES),
    message: shortened(withoutSecrets(messageOf(thrown)), MAX_MESSAGE_BYTES),
    ...(typeof code === 'string' ? { code: shortened(code, MAX_CODE_BYTES) } : {}),
  }
}

/** A thrown thing, or an error in the place of one that does not even say what it is: a proxy may throw when it is asked. */
export function asSeen(thrown: unknown): unknown {
  try {
    if (thrown instanceof Error) return thrown
  } catch {
    const message = 'It threw or rejected with a proxy that cannot be looked at: throw an error.'
    return new HandlerError('HANDLER_FAILED', message)
  }
  return thrown
}

function nameOf(thrown: unknown): string {
  const name = read(thrown, 'name')
  if (typeof name === 'string' && name !== '') return name
  return thrown === null ? 'null' : typeof thrown
}

function messageOf(thrown: unknown): string {
  const message = read(thrown, 'message')
  if (typeof message === 'string') return message
  if (thrown === undefined || thrown === null) return `It threw or rejected with ${String(thrown)}.`
  if (typeof thrown === 'string') return thrown
  const isPlain = typeof thrown === 'number' || typeof thrown === 'boolean' || typeof thrown === 'bigint'
  return isPlain ? String(thrown) : 'It threw or rejected with something that is not an error.'
}

/** Reads a property of something foreign, whose getters may throw. */
function read(thrown: unknown, property: string): unknown {
  if ((typeof thrown !== 'object' && typeof thrown !== 'function') || thrown === null) return undefined
  try {
    return (thrown as Record<string, unknown>)[property]
  } catch {
    return undefined
  }
}

/** The longest beginning of a text within so many UTF-8 bytes, never cutting a character in two. */
function shortened(text: string, maxBytes: number): string {
  // A lone surrogate would become three bytes elsewhere; well-formed text has one length everywhere.
  const whole = text.slice(0, maxBytes).toWellFormed()
  const bytes = bytesOf(whole)
  if (bytes.length <= maxBytes) return whole
  return new TextDecoder().decode(bytes.subarray(0, maxBytes), { stream: true })
}
