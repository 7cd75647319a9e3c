import { createRequire } from 'node:module'

import { describe, expect, test } from 'vitest'

import { kafkaErrors } from '../../src/kafka-errors.ts'

/** A real client's table of the protocol's errors. It keeps names that Kafka has since changed. */
const { createErrorFromCode } = createRequire(import.meta.url)('kafkajs/src/protocol/error') as {
  readonly createErrorFromCode: (code: number) => {
    readonly type: string
    readonly code: number
    readonly retriable: boolean
  }
}

const renamed: Readonly<Record<string, string>> = {
  NOT_LEADER_FOR_PARTITION: 'NOT_LEADER_OR_FOLLOWER',
  GROUP_LOAD_IN_PROGRESS: 'COORDINATOR_LOAD_IN_PROGRESS',
  GROUP_COORDINATOR_NOT_AVAILABLE: 'COORDINATOR_NOT_AVAILABLE',
  NOT_COORDINATOR_FOR_GROUP: 'NOT_COORDINATOR',
  INVALID_CONFIG: 'INVALID_CONFIG_VALUE',
  UNKNOWN: 'UNKNOWN_SERVER_ERROR',
}

/** Numbers that the client does not know: it is older than they are. */
const newer: readonly string[] = ['INVALID_RECORD']

describe('kafkaErrors', () => {
  test.each(Object.entries(kafkaErrors).filter(([name]) => !newer.includes(name)))(
    '%s has the number and the retriable flag that Kafka gives it',
    (name, { errorCode, retriable }) => {
      const theirs = createErrorFromCode(errorCode)

      expect({ name: renamed[theirs.type] ?? theirs.type, retriable: theirs.retriable }).toEqual({ name, retriable })
    },
  )

  test('no number stands for two names', () => {
    const numbers = Object.values(kafkaErrors).map(({ errorCode }) => errorCode)

    expect(new Set(numbers).size).toBe(numbers.length)
  })
})
