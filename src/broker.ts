/**
 * PORT: what Kedge needs of a log, and what a driver in `brokers/` must keep.
 *
 * To implementers:
 * - Every call makes **one attempt** and classifies its failure: it rejects with a `BrokerError` whose `code` and
 *   `retriable` are right. Retry, defaulting, batching and tracing happen above.
 * - Every method may be called concurrently with every other and with itself.
 * - A call must not keep or change the arrays and bytes it was given after it settled, and must not hand out bytes that
 *   it will write to later.
 * - `call.signal` aborted: the call rejects at once with the signal's reason (`abortError`), having written either all it
 *   was asked to or nothing; which of the two is then unknown to the caller.
 * - `call.timeoutMs` passed: rejects with TIMEOUT, the outcome being unknown.
 * - What a driver cannot do it refuses with UNSUPPORTED, and says so in `features`; it never silently does less.
 * - After `close()` every call rejects with CLOSED.
 * - A broker that is opened with a topic that does not exist opens; the first *use* of the topic rejects with
 *   UNKNOWN_TOPIC_OR_PARTITION.
 */
import type { BrokerError } from './errors.ts'
import type {
  CommittedOffset,
  ConsumerRecord,
  Offset,
  ProducerRecord,
  RecordMetadata,
  TimestampMs,
  TopicPartition,
  TopicPartitionOffset,
} from './record.ts'

/** How one call may be given up, and who counts what it sends. All are optional; absent means the driver's own default. */
export interface Call {
  readonly signal?: AbortSignal
  /** Longest time the whole call may take, milliseconds. A poll's or fetch's `maxWaitMs` counts inside it. */
  readonly timeoutMs?: number
  /**
   * Called by drivers whose calls are requests that a platform counts (`rest`) before each one; what it throws, the call rejects
   * with, and nothing is sent. Whoever makes several calls of one hands it on.
   */
  readonly onRequest?: () => void
}

/** What a driver can do. The conformance suite reads this; it has no options of its own. */
export interface BrokerFeatures {
  /** A `produce` whose records span partitions is written whole or not at all. */
  readonly atomicProduce: boolean
  /** `produce` honours `idempotencyKey`. Otherwise a call with one is refused with UNSUPPORTED. */
  readonly idempotencyKeys: boolean
  /** Runs can claim an instance: `claim`, `release` and `runId` in poll and commit. Otherwise refused with UNSUPPORTED. */
  readonly claims: boolean
  /** `createTopic` and `deleteTopic`. Otherwise refused with UNSUPPORTED. */
  readonly topicAdmin: boolean
  /** Members may ask for auto-commit. Otherwise a poll with `enableAutoCommit: true` is refused with UNSUPPORTED. */
  readonly autoCommit: boolean
  /** Committed offsets keep their `metadata`. Otherwise metadata other than null is refused with UNSUPPORTED. */
  readonly offsetMetadata: boolean
  /** Topics can delete old records by time and size. Otherwise `createTopic` with a retention is refused with UNSUPPORTED. */
  readonly retention: boolean
}

/** One consumer of a group: Kafka's `group.id` and `group.instance.id`. */
export interface GroupInstance {
  readonly groupId: string
  readonly groupInstanceId: string
}

/** Where a member starts in a partition without a committed offset (auto.offset.reset). `none` refuses with NO_COMMITTED_OFFSET. */
export type AutoOffsetReset = 'earliest' | 'latest' | 'none'

/** How one `produce` is made. */
export interface ProduceOptions {
  /**
   * `true` (default): if one record cannot be taken, the call rejects with that record's error and, with
   * `features.atomicProduce`, nothing is written. `false`: each record stands for itself, the call resolves, and the
   * result at the index of a record that was not taken is its error.
   */
  readonly atomic?: boolean
  /**
   * Names this produce for 24 hours: the same key with the same records (same order, bytes and settings) returns the
   * stored result and writes nothing; with others it rejects with IDEMPOTENCY_KEY_REUSED; while the first is still
   * being written, with IDEMPOTENCY_KEY_IN_FLIGHT. 1 to 255 visible ASCII characters. A produce that was refused whole
   * leaves the key free.
   */
  readonly idempotencyKey?: string
}

/** What became of one record of a produce, at its index. */
export type ProduceResult = RecordMetadata | BrokerError

/** How long to wait and how much to answer. */
export interface FetchLimits {
  /** Longest wait for the first record, milliseconds (fetch.max.wait.ms). 0 answers at once. */
  readonly maxWaitMs: number
  /** Most records in the answer (max.poll.records), at least 1. */
  readonly maxRecords: number
  /** Most bytes of keys, values and headers in the answer; the first record is returned whatever its size (fetch.max.bytes). */
  readonly maxBytes: number
}

/**
 * How a run speaks of itself. A run is one invocation of a scheduled function; `runId` is unique to it.
 *
 * With a run, reading is a function of the request: the position of each partition is the one the run names, where it
 * names one that is still valid, and the committed offset otherwise. So an answer that was lost is simply asked for again.
 */
export interface RunPosition {
  /** 1 to 128 visible ASCII characters: it travels as an HTTP header. */
  readonly runId: string
  /**
   * How long the claim lives without a poll, commit or claim from the run; it lives while a poll of the run is served.
   * @default 60000, legal 1000 to 900000
   */
  readonly claimTtlMs?: number
  /** The generation that came with the run's newest poll answer; absent in its first poll. */
  readonly generationId?: number
  /**
   * The next offset the run wants, for each partition from which it has received records that are not committed yet.
   * Honoured for a partition that the member has held without a break since `generationId`; others start at their
   * committed offset. Absent means: continue where the member's last answer ended.
   */
  readonly positions?: readonly TopicPartitionOffset[]
}

/** What one `poll` asks for. */
export interface PollRequest extends FetchLimits {
  readonly group: GroupInstance
  /** The subscription. Another list than before replaces it and rebalances; at least one topic. */
  readonly topics: readonly string[]
  readonly run?: RunPosition
  /** Read when the member joins. @default 'latest' (auto.offset.reset) */
  readonly autoOffsetReset?: AutoOffsetReset
  /** Read when the member joins. Must be absent or false with `run`. @default false (enable.auto.commit) */
  readonly enableAutoCommit?: boolean
  /** Read when the member joins. @default 5000 (auto.commit.interval.ms) */
  readonly autoCommitIntervalMs?: number
  /** The member is removed when it has not called for so long. Read when it joins. @default 120000, legal 1000 to 1800000 */
  readonly sessionTimeoutMs?: number
}

/** What one `poll` gives. */
export interface PollResult {
  /** Ascending by offset within each partition; no order between partitions. Empty when nothing came in time. */
  readonly records: readonly ConsumerRecord[]
  /** Grows with every rebalance of the group and never falls, restarts included. */
  readonly generationId: number
  /** What the member holds in this generation, ordered by topic and partition. */
  readonly assignment: readonly TopicPartition[]
  /**
   * Set when the poll ends before the member has joined, because the group's rebalance waits for others: ask again after
   * so long, milliseconds. `records` is then empty, `generationId` and `assignment` say nothing, and whether the run has
   * the claim is not known; what the caller holds it may take to be held still.
   * @default absent: the member has joined
   */
  readonly retryAfterMs?: number
  /**
   * With `run`: the run before this one on the instance never gave its claim back: it died, or nobody heard of its end. Said
   * in every answer for as long as this run has the claim. Where a broker has forgotten who was there, it says nothing.
   * @default absent: it ended in order, or is not known
   */
  readonly formerRunLapsed?: true
}

/** An offset to commit. */
export interface OffsetCommit extends TopicPartitionOffset {
  /** Stored beside the offset, at most 4,096 bytes of UTF-8. @default null */
  readonly metadata?: string | null
}

/** On whose behalf a `commit` is made. */
export interface CommitOptions {
  /** The committing run. Without the claim on the instance the commit rejects with CLAIM_LOST. */
  readonly runId?: string
  /** With a generation, every partition must be held by the member since then, else ILLEGAL_GENERATION and nothing is stored. */
  readonly generationId?: number
}

/** The settings of a topic. */
export interface TopicConfig {
  /** Records older than this may be deleted, milliseconds. null: kept for ever. @default 604800000 (retention.ms, 7 days) */
  readonly retentionMs?: number | null
  /** The oldest batches of a partition over this size may be deleted, bytes. null: unlimited. @default null (retention.bytes) */
  readonly retentionBytes?: number | null
  /** Largest record: key, value and headers, bytes. @default 1048576 (max.message.bytes) */
  readonly maxRecordBytes?: number
}

/** A topic to create. */
export interface NewTopic extends TopicConfig {
  readonly topic: string
  /** @default 1, legal 1 to 1000 */
  readonly partitions?: number
}

/** A topic as it is. */
export interface TopicDescription extends Required<TopicConfig> {
  readonly topic: string
  readonly partitions: number
}

/** One member of a group. */
export interface MemberDescription {
  readonly groupInstanceId: string
  readonly assignment: readonly TopicPartition[]
  /** The run that holds the instance's claim, or null. */
  readonly runId: string | null
}

/** A group as it is. */
export interface GroupDescription {
  readonly groupId: string
  readonly generationId: number
  /** Members only; a group with committed offsets and no member is listed with none. */
  readonly members: readonly MemberDescription[]
}

/** Where an `offsets` look-up points: the log start, the log end, or the first record at or after a time. */
export type OffsetSpec = 'earliest' | 'latest' | TimestampMs

/** A log with topics and consumer groups. */
export interface Broker extends AsyncDisposable {
  /** What it can do as far as it is known: a driver behind a gateway learns of what is missing when it is refused. */
  readonly features: BrokerFeatures

  /**
   * Appends records. Resolves when every record it reports as stored is **durable** (on disk, or at `acks=all`) and can
   * be fetched, with one result per record in the order given. Records of one call to one partition are stored in the
   * order given; of two calls, in the order in which they were made, where the first was made before the second
   * (concurrent calls of one caller included). An empty list resolves to an empty list.
   *
   * Rejects with UNKNOWN_TOPIC_OR_PARTITION, MESSAGE_TOO_LARGE, INVALID_TIMESTAMP, INVALID_RECORD,
   * IDEMPOTENCY_KEY_IN_FLIGHT, IDEMPOTENCY_KEY_REUSED, KAFKA_STORAGE_ERROR.
   */
  produce(records: readonly ProducerRecord[], options?: ProduceOptions, call?: Call): Promise<ProduceResult[]>

  /**
   * Reads from given offsets, without a group. Resolves as soon as one record is there, else empty after `maxWaitMs`.
   * The offset of the log end is legal: it waits for the next record. Duplicated partitions count once, the last wins.
   *
   * Rejects with UNKNOWN_TOPIC_OR_PARTITION, OFFSET_OUT_OF_RANGE (below the log start or above the log end).
   */
  fetch(from: readonly TopicPartitionOffset[], limits: FetchLimits, call?: Call): Promise<ConsumerRecord[]>

  /**
   * Reads as a member of a group, joining it first where necessary; two members of a group never hold one partition in
   * one generation. Resolves as soon as one record is there, else empty after `maxWaitMs`. **Never commits** what it
   * returns, except what auto-commit owes from earlier answers. A member's position moves only with what was returned to
   * it; positions lost with a member or a restart go back to the committed offsets.
   *
   * With `run`: takes or renews the claim on the instance first. Another run's live claim rejects with CLAIM_HELD and
   * `retryAfterMs`; a run that takes the claim starts from the committed offsets, and what the instance's former run
   * polled without committing comes again. Where nothing is committed and the reset is `latest`, the log end that the run
   * found is committed at once: otherwise each run would look for the end anew, past what came in between two runs.
   *
   * A join that has to wait for other members never makes a poll late: it resolves empty after `maxWaitMs`, with
   * `retryAfterMs`, and the next poll goes on with the same join.
   *
   * Concurrent polls of one instance are served one after the other. A poll that waits is ended (with what there is, or
   * empty) by `leave`, `deleteTopic` and `close`, never left hanging.
   *
   * Rejects with CLAIM_HELD, NO_COMMITTED_OFFSET (reset `none`), UNKNOWN_TOPIC_OR_PARTITION, INVALID_GROUP_ID,
   * INVALID_REQUEST, INVALID_SESSION_TIMEOUT.
   */
  poll(request: PollRequest, call?: Call): Promise<PollResult>

  /**
   * Takes the claim on an instance for a run, or renews it, without joining or reading.
   * Rejects with CLAIM_HELD and `retryAfterMs` while another run's claim is live.
   */
  claim(group: GroupInstance, run: Pick<RunPosition, 'runId' | 'claimTtlMs'>, call?: Call): Promise<void>

  /** Gives the claim back, so that the next run need not wait for it to lapse. Resolves also when the run does not hold it. */
  release(group: GroupInstance, runId: string, call?: Call): Promise<void>

  /**
   * Stores offsets for the group, exactly as given: an offset is the *next* to read, and is checked neither against the
   * log end nor against the assignment (unless a generation is given). Of several entries for a partition the last wins.
   * Resolves when durable. `'polled'` commits the positions after the member's newest answer.
   *
   * Rejects with CLAIM_LOST, ILLEGAL_GENERATION, UNKNOWN_MEMBER_ID (`'polled'` for an instance that is not a member),
   * UNKNOWN_TOPIC_OR_PARTITION, OFFSET_METADATA_TOO_LARGE, INVALID_REQUEST (a negative or unsafe offset).
   * One refused entry refuses all.
   */
  commit(
    group: GroupInstance,
    offsets: readonly OffsetCommit[] | 'polled',
    options?: CommitOptions,
    call?: Call,
  ): Promise<void>

  /**
   * The group's committed offsets, one for each partition asked for, in that order (offset -1 where there is none); all
   * that are stored, ordered by topic and partition, when `partitions` is absent. Needs no member.
   */
  committed(groupId: string, partitions?: readonly TopicPartition[], call?: Call): Promise<CommittedOffset[]>

  /**
   * Looks offsets up, one for each partition asked for, in that order. A timestamp gives the first record at or after it,
   * and the log end where there is none. Rejects with UNKNOWN_TOPIC_OR_PARTITION.
   */
  offsets(partitions: readonly TopicPartition[], at: OffsetSpec, call?: Call): Promise<TopicPartitionOffset[]>

  /** All topics, ordered by name; internal ones left out. */
  topics(call?: Call): Promise<TopicDescription[]>

  /**
   * Creates a topic. Names: Kafka's rule, 1 to 249 of `[a-zA-Z0-9._-]`, not `.` or `..`.
   * Rejects with TOPIC_ALREADY_EXISTS, INVALID_TOPIC_EXCEPTION, INVALID_PARTITIONS, INVALID_CONFIG_VALUE.
   */
  createTopic(topic: NewTopic, call?: Call): Promise<TopicDescription>

  /** Deletes a topic, its records and its committed offsets. Rejects with UNKNOWN_TOPIC_OR_PARTITION. */
  deleteTopic(topic: string, call?: Call): Promise<void>

  /** All groups that have members or committed offsets, ordered by id; members ordered by instance id. */
  groups(call?: Call): Promise<GroupDescription[]>

  /**
   * Removes the instance from its group, which rebalances at once; its claim goes with it, committed offsets stay, and
   * what auto-commit owes is committed first. Rejects with UNKNOWN_MEMBER_ID.
   */
  leave(group: GroupInstance, call?: Call): Promise<void>

  /** Ends all waiting calls, makes what was acknowledged durable, frees everything. Idempotent; later calls reject with CLOSED. */
  close(): Promise<void>
}

/** Opens a broker from the parts of its URL. One row of a runtime's driver table. */
export type BrokerDriver = (url: URL) => Broker | Promise<Broker>

/** The largest offset that can be carried: beyond it JSON numbers lose digits. */
export const MAX_OFFSET: Offset = Number.MAX_SAFE_INTEGER
/** Kafka's `offset.metadata.max.bytes`. */
export const MAX_OFFSET_METADATA_BYTES = 4096
/** How long a claim lives without a call from its run, unless the run says otherwise. */
export const DEFAULT_CLAIM_TTL_MS = 60_000
/** How long a member may be silent, unless it says otherwise. */
export const DEFAULT_SESSION_TIMEOUT_MS = 120_000
/** Largest record unless its topic says otherwise: Kafka's default `max.message.bytes`, less its overhead. */
export const DEFAULT_MAX_RECORD_BYTES = 1_048_576
/** Kafka's default `retention.ms`: seven days. */
export const DEFAULT_RETENTION_MS = 604_800_000
