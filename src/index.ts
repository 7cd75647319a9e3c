/**
 * The public API: everything here runs on every platform, Workers and browsers included, and needs nothing but `fetch`.
 * What belongs to one platform or brings a large dependency has a path of its own (package.json, `exports`):
 * `kedge/brokers/log`, `kedge/gateway`, `kedge/runtimes/cloudflare`, `kedge/runtimes/lambda`,
 * `kedge/runtimes/node-gateway`, and under `kedge/dead-letters/` and `kedge/idempotency/` each store that is a system's.
 */

// Topics, producing, consuming
export { defineTopic, narrowTopic } from './topic.ts'
export { createProducer } from './producer.ts'
export { createRouter } from './router.ts'
export { BatchError, reject, DeadLetterError, RetryAfterError, SkipError, StopError } from './handler-errors.ts'
export { defineApp, retryDefaults } from './app.ts'
export { createConsumer } from './consumer.ts'
export { createOperations } from './operations.ts'
export { createRedrive, redriveDefaults } from './redrive.ts'
export { backoffDefaults } from './backoff.ts'
export { headersOf, headerText, lastHeader } from './headers.ts'
export { bytesOf, exactTextOf, textOf } from './record.ts'

// Brokers, dead-letter stores and idempotency stores
export { memoryBroker } from './brokers/memory.ts'
export { restBroker, restBrokerDefaults } from './brokers/rest.ts'
export { claimCheck, claimedLetter } from './dead-letters/claim-check.ts'
export { fallbackDeadLetters } from './dead-letters/fallback.ts'
export { memoryDeadLetters } from './dead-letters/memory.ts'
export { topicDeadLetters } from './dead-letters/topic.ts'
export { decodeDeadLetter, encodeDeadLetter } from './dead-letters/codec.ts'
export { memoryIdempotency } from './idempotency/memory.ts'
export { deadLetterFingerprint } from './dead-letter-fingerprint.ts'
export { deadLetterId, deadLetterReasons, isDeadLetterReason } from './dead-letter.ts'
export { partitionForKey } from './partitioner.ts'

// Errors
export {
  BrokerError,
  ConfigError,
  DeadLetterStoreError,
  GatewayError,
  HandlerError,
  IdempotencyError,
  isErrorCode,
  isRetriableCode,
  KedgeError,
  ownErrors,
  RecordError,
} from './errors.ts'
export { errorMeanings } from './error-meanings.ts'
export { kafkaErrors } from './kafka-errors.ts'

// Time and chance, for tests and for platforms that have their own
export { systemClock } from './clock.ts'
export { systemRandom } from './random.ts'

export type {
  App,
  AppOptions,
  BreakerPolicy,
  OffsetAnomalyPolicy,
  Parking,
  ParkingOptions,
  RetryPolicy,
} from './app.ts'
export type { Backoff, BackoffOptions } from './backoff.ts'
export type {
  AutoOffsetReset,
  Broker,
  BrokerDriver,
  BrokerFeatures,
  Call,
  CommitOptions,
  FetchLimits,
  GroupDescription,
  GroupInstance,
  MemberDescription,
  NewTopic,
  OffsetCommit,
  OffsetSpec,
  PollRequest,
  PollResult,
  ProduceOptions,
  ProduceResult,
  RunPosition,
  TopicConfig,
  TopicDescription,
} from './broker.ts'
export type { MemoryBrokerOptions } from './brokers/memory.ts'
export type { RestBrokerOptions } from './brokers/rest.ts'
export type { Clock } from './clock.ts'
export type { Consumer, ConsumerOptions, RunOptions } from './consumer.ts'
export type { OpenedBreaker, RunCause, RunEnd, RunReport, StoppedPartition } from './consumer/report.ts'
export type {
  DeadLetter,
  DeadLetterCause,
  DeadLetterDriver,
  DeadLetterFeatures,
  DeadLetterId,
  DeadLetterQuery,
  DeadLetterReason,
  DeadLetterStore,
  Page,
} from './dead-letter.ts'
export type { ClaimCheckOptions } from './dead-letters/claim-check.ts'
export type { FallbackDeadLettersOptions } from './dead-letters/fallback.ts'
export type { FingerprintParts } from './dead-letter-fingerprint.ts'
export type { MemoryDeadLettersOptions } from './dead-letters/memory.ts'
export type { HeaderDialect } from './dead-letters/topic-dialects.ts'
export type { TopicDeadLettersOptions } from './dead-letters/topic.ts'
export type { AnyKedgeError, ErrorCode, ErrorDetails, KafkaErrorName, OwnErrorCode, RecordIssue } from './errors.ts'
export type { BatchFailure } from './handler-errors.ts'
export type { HeadersInput } from './headers.ts'
export type {
  BeginOptions,
  BeginResult,
  CompleteOptions,
  IdempotencyDriver,
  IdempotencyFeatures,
  IdempotencyKey,
  IdempotencyStore,
} from './idempotency.ts'
export type { MemoryIdempotencyOptions } from './idempotency/memory.ts'
export type { Log, LogEvent, LogLevel, LogValue } from './logger.ts'
export type {
  BackfillOptions,
  BackfillPlan,
  BackfillProgress,
  BackfillReport,
  MovedPartition,
  Operations,
  OperationsOptions,
  OperationsStatus,
  OperatorOptions,
  PartitionStatus,
  PauseOptions,
  ResumeBackfillOptions,
  SeekOptions,
  SeekTarget,
  SkipOptions,
  StopBackfillOptions,
} from './operations.ts'
export type { OperationAudit, OperationAuditSink, OperationVerb } from './operations/frame.ts'
export type { BackfillOrder, Paused } from './operations/state.ts'
export type { EachResult, ProduceCall, Producer, ProducerOptions, RecordInput, RecordOptions } from './producer.ts'
export type { Random } from './random.ts'
export type {
  CommittedOffset,
  ConsumerRecord,
  Header,
  Offset,
  ProducerRecord,
  RecordMetadata,
  TimestampMs,
  TopicPartition,
  TopicPartitionOffset,
} from './record.ts'
export type {
  Redrive,
  RedriveCounts,
  RedriveEditOptions,
  RedriveEnd,
  RedriveFilter,
  RedriveOptions,
  RedriveReport,
  RedriveRunOptions,
} from './redrive.ts'
export type { AuditSink, RedriveAudit } from './redrive/audit.ts'
export type { RedriveBucket, RedriveHistogram, RedrivePlan } from './redrive/plan.ts'
export type {
  BatchHandler,
  BatchRouteOptions,
  BreakerOptions,
  Delivery,
  FieldValue,
  Handler,
  HandlerContext,
  Ordering,
  Otherwise,
  RetryDecision,
  RetryOptions,
  Route,
  RouteBatch,
  RouteMatch,
  RouteOptions,
  Router,
} from './router.ts'
export type { SchemaInput, SchemaOutput, StandardSchema } from './standard-schema.ts'
export type { Topic, TopicOptions, TopicSchema, ValueFormat } from './topic.ts'
