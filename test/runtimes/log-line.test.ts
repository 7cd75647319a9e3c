import { expect, test } from 'vitest'
import { logLine } from '../../src/runtimes/log-line.ts'

const place = { topic: 'orders', partition: 0, offset: 12 }

test.each([
  [{ level: 'info', event: 'handled', ...place }, 'handled orders partition 0 offset 12'],
  [
    { level: 'warn', event: 'dead-lettered', ...place, reason: 'invalid', route: null },
    'dead-lettered orders partition 0 offset 12 reason=invalid',
  ],
  [
    { level: 'info', event: 'log', message: 'shipping', ...place, order: 'a1' },
    'shipping orders partition 0 offset 12 order=a1',
  ],
  [{ level: 'info', event: 'x', text: 'two\nlines "quoted"', empty: '' }, 'x text="two\\nlines \\"quoted\\"" empty=""'],
  [{ level: 'info', event: 'run ended', durationMs: 12.3456, handled: 0 }, 'run ended durationMs=12.3 handled=0'],
] as const)('%j', (event, line) => {
  expect(logLine(event)).toBe(line)
})
