/** The operations topic of a group: what is in force, and the audit of who ordered it. One partition; kept for ever. */
import { appendOnce } from '../append-once.ts'
import type { App } from '../app.ts'
import type { Broker, NewTopic } from '../broker.ts'
import type { RedriveCalls } from '../redrive/calls.ts'
import { operationsTopicName } from '../return-topic.ts'
import type { OperationAudit } from './frame.ts'
import { encodeState, newOperationsTopic, readState, untouched } from './state.ts'
import type { OperationsState } from './state.ts'

/** What the topic needs. */
export interface OperationsTopicScope {
  readonly broker: Broker
  readonly groupId: string
  readonly app: App | undefined
  readonly calls: RedriveCalls
}

/** The topic as it was when it was read, under the lock of the group. */
export class OperationsTopic {
  readonly state: OperationsState
  /** Undefined where the group has none: nothing heeds what would stand there, and the audit goes elsewhere only. */
  readonly #name: string | undefined
  readonly #scope: OperationsTopicScope

  private constructor(scope: OperationsTopicScope, name: string | undefined, state: OperationsState) {
    this.#scope = scope
    this.#name = name
    this.state = state
  }

  /** Reads it. Rejects as the broker does. */
  static async open(scope: OperationsTopicScope): Promise<OperationsTopic> {
    const { broker, groupId, app, calls } = scope
    const name = app?.operationsTopic ?? operationsTopicName(groupId)
    if (name === undefined) return new OperationsTopic(scope, undefined, untouched)
    const { state, exists } = await readState(broker, name, (work) => calls.make(work))
    return new OperationsTopic(scope, exists || app?.operationsTopic !== undefined ? name : undefined, state)
  }

  /** Whether runs of the group read it. */
  get isHeeded(): boolean {
    return this.#name !== undefined
  }

  /** Writes an audit record, and what is in force from then on. Makes the topic where it is missing. Rejects as the broker does. */
  async append(audit: OperationAudit, state: OperationsState = this.state): Promise<void> {
    const topic = this.#name
    if (topic === undefined) return
    const { broker, calls } = this.#scope
    const records = [{ topic, key: null, value: encodeState(state, audit) }]
    const idempotencyKey = `operate/${audit.operationId}/${audit.phase}`
    const create = (through: Broker): Promise<NewTopic> => Promise.resolve(newOperationsTopic(through, topic))
    await calls.make((call) => appendOnce({ broker, records, idempotencyKey, create }, call))
  }
}
