/**
 * A process of its own over a SQLite file: `contender.ts FILE OWNER KEYS` begins that many keys and prints which it started, as JSON,
 * `contender.ts FILE OWNER` stores one outcome, takes one lock, says so, and then holds on until it is killed.
 */
import { sqliteIdempotency } from '../../src/idempotency/sqlite.ts'

const [file = '', owner = '', keys] = process.argv.slice(2)
// Waits for its rivals as long as it takes.
const store = sqliteIdempotency({ file, busyMs: 20_000 })
const lock = { owner, lockMs: 60_000 }

if (keys === undefined) {
  await store.begin('done', lock)
  await store.complete('done', owner, new TextEncoder().encode('by the dead'), { keepMs: 60_000 })
  await store.begin('locked', lock)
  console.log('ready')
  setInterval(() => {}, 60_000)
} else {
  const started: number[] = []
  for (let key = 0; key < Number(keys); key += 1) {
    if ((await store.begin(String(key), lock)).kind === 'started') started.push(key)
  }
  await store.close()
  console.log(JSON.stringify(started))
}
