/** The answer of calls that return no data: all three fields, which satisfies every known client. */
import type { Answer } from './route.ts'

/** What calls answer that return no data. */
export const success: Answer = { json: { result: 'Success', error: '', status: 200 } }
