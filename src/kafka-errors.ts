/**
 * Kafka's protocol errors that a caller of Kedge can meet, by Kafka's own names, numbers and retriable flags, so that a
 * driver for a real cluster needs no second table. One name differs: Kafka's INVALID_CONFIG (40) is INVALID_CONFIG_VALUE
 * here, because Kedge's own INVALID_CONFIG says that a setting of the process is wrong.
 * @see https://kafka.apache.org/protocol.html#protocol_error_codes
 */
export const kafkaErrors = {
  UNKNOWN_SERVER_ERROR: { errorCode: -1, retriable: false },
  OFFSET_OUT_OF_RANGE: { errorCode: 1, retriable: false },
  CORRUPT_MESSAGE: { errorCode: 2, retriable: true },
  UNKNOWN_TOPIC_OR_PARTITION: { errorCode: 3, retriable: true },
  LEADER_NOT_AVAILABLE: { errorCode: 5, retriable: true },
  NOT_LEADER_OR_FOLLOWER: { errorCode: 6, retriable: true },
  REQUEST_TIMED_OUT: { errorCode: 7, retriable: true },
  MESSAGE_TOO_LARGE: { errorCode: 10, retriable: false },
  OFFSET_METADATA_TOO_LARGE: { errorCode: 12, retriable: false },
  COORDINATOR_LOAD_IN_PROGRESS: { errorCode: 14, retriable: true },
  COORDINATOR_NOT_AVAILABLE: { errorCode: 15, retriable: true },
  NOT_COORDINATOR: { errorCode: 16, retriable: true },
  INVALID_TOPIC_EXCEPTION: { errorCode: 17, retriable: false },
  NOT_ENOUGH_REPLICAS: { errorCode: 19, retriable: true },
  ILLEGAL_GENERATION: { errorCode: 22, retriable: false },
  INCONSISTENT_GROUP_PROTOCOL: { errorCode: 23, retriable: false },
  INVALID_GROUP_ID: { errorCode: 24, retriable: false },
  UNKNOWN_MEMBER_ID: { errorCode: 25, retriable: false },
  INVALID_SESSION_TIMEOUT: { errorCode: 26, retriable: false },
  REBALANCE_IN_PROGRESS: { errorCode: 27, retriable: false },
  TOPIC_AUTHORIZATION_FAILED: { errorCode: 29, retriable: false },
  GROUP_AUTHORIZATION_FAILED: { errorCode: 30, retriable: false },
  CLUSTER_AUTHORIZATION_FAILED: { errorCode: 31, retriable: false },
  INVALID_TIMESTAMP: { errorCode: 32, retriable: false },
  TOPIC_ALREADY_EXISTS: { errorCode: 36, retriable: false },
  INVALID_PARTITIONS: { errorCode: 37, retriable: false },
  INVALID_CONFIG_VALUE: { errorCode: 40, retriable: false },
  INVALID_REQUEST: { errorCode: 42, retriable: false },
  POLICY_VIOLATION: { errorCode: 44, retriable: false },
  KAFKA_STORAGE_ERROR: { errorCode: 56, retriable: true },
  SASL_AUTHENTICATION_FAILED: { errorCode: 58, retriable: false },
  NON_EMPTY_GROUP: { errorCode: 68, retriable: false },
  GROUP_ID_NOT_FOUND: { errorCode: 69, retriable: false },
  FENCED_INSTANCE_ID: { errorCode: 82, retriable: false },
  INVALID_RECORD: { errorCode: 87, retriable: false },
} as const
