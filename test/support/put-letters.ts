/** A thread of its own that puts letters into an SQLite file, at the same time as others. */
import { workerData } from 'node:worker_threads'

import { sqliteDeadLetters } from '../../src/dead-letters/sqlite.ts'
import { letterAt } from '../conformance/dead-letter-store/letters.ts'

const { path, count } = workerData as { readonly path: string; readonly count: number }
const store = sqliteDeadLetters({ path, busyTimeoutMs: 10_000 })
for (let offset = 0; offset < count; offset += 1) await store.put(letterAt(offset))
await store.close()
