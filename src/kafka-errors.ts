/**
 * Kafka's protocol errors that a caller of Kedge can meet, by Kafka's own names, numbers and retriable flags, so that a
 * driver for a real cluster needs no second table. One name differs: Kafka's INVALID_CONFIG (40) is INVALID_CONFIG_VALUE
 * here, because Kedge's own INVALID_CONFIG says that a setting of the process is wrong.
 * @see https://kafka.apache.org/protocol.html#protocol_error_codes
 */
export const kafkaErrors = {
  UNKNOWN_SERVER_ERROR: {
    errorCode: -1,
    retriable: false,
    description: 'The broker failed in a way it has no name for.',
  },
  OFFSET_OUT_OF_RANGE: {
    errorCode: 1,
    retriable: false,
    description: 'The offset is below the log start or above the log end.',
  },
  CORRUPT_MESSAGE: {
    errorCode: 2,
    retriable: true,
    description: 'A record batch failed its checksum or its size is wrong.',
  },
  UNKNOWN_TOPIC_OR_PARTITION: {
    errorCode: 3,
    retriable: true,
    description: 'The topic or the partition does not exist here.',
  },
  LEADER_NOT_AVAILABLE: { errorCode: 5, retriable: true, description: 'The partition has no leader at the moment.' },
  NOT_LEADER_OR_FOLLOWER: {
    errorCode: 6,
    retriable: true,
    description: 'The asked broker no longer leads the partition.',
  },
  REQUEST_TIMED_OUT: {
    errorCode: 7,
    retriable: true,
    description: 'The broker gave up waiting; the outcome is unknown.',
  },
  MESSAGE_TOO_LARGE: { errorCode: 10, retriable: false, description: 'A record is larger than the topic accepts.' },
  OFFSET_METADATA_TOO_LARGE: {
    errorCode: 12,
    retriable: false,
    description: 'The metadata of a committed offset is over 4,096 bytes.',
  },
  COORDINATOR_LOAD_IN_PROGRESS: {
    errorCode: 14,
    retriable: true,
    description: "The group's coordinator is still reading its state.",
  },
  COORDINATOR_NOT_AVAILABLE: {
    errorCode: 15,
    retriable: true,
    description: 'The group has no coordinator at the moment.',
  },
  NOT_COORDINATOR: {
    errorCode: 16,
    retriable: true,
    description: 'The asked broker is not the coordinator of the group.',
  },
  INVALID_TOPIC_EXCEPTION: { errorCode: 17, retriable: false, description: 'The topic name is not one Kafka allows.' },
  NOT_ENOUGH_REPLICAS: {
    errorCode: 19,
    retriable: true,
    description: 'Too few replicas are in sync to accept the write.',
  },
  ILLEGAL_GENERATION: {
    errorCode: 22,
    retriable: false,
    description: 'The commit speaks for a generation in which the partition was held by another member.',
  },
  INCONSISTENT_GROUP_PROTOCOL: {
    errorCode: 23,
    retriable: false,
    description: 'The group is used with another protocol.',
  },
  INVALID_GROUP_ID: { errorCode: 24, retriable: false, description: 'The group id is empty or not allowed.' },
  UNKNOWN_MEMBER_ID: { errorCode: 25, retriable: false, description: 'The group has no such member.' },
  INVALID_SESSION_TIMEOUT: {
    errorCode: 26,
    retriable: false,
    description: 'The session timeout is outside the allowed range.',
  },
  REBALANCE_IN_PROGRESS: {
    errorCode: 27,
    retriable: false,
    description: 'The group is rebalancing: the member must join again first.',
  },
  TOPIC_AUTHORIZATION_FAILED: {
    errorCode: 29,
    retriable: false,
    description: 'The credentials do not allow this on the topic.',
  },
  GROUP_AUTHORIZATION_FAILED: {
    errorCode: 30,
    retriable: false,
    description: 'The credentials do not allow this on the group.',
  },
  CLUSTER_AUTHORIZATION_FAILED: { errorCode: 31, retriable: false, description: 'The credentials do not allow this.' },
  INVALID_TIMESTAMP: { errorCode: 32, retriable: false, description: 'The timestamp is negative or not allowed.' },
  TOPIC_ALREADY_EXISTS: { errorCode: 36, retriable: false, description: 'A topic of that name exists.' },
  INVALID_PARTITIONS: { errorCode: 37, retriable: false, description: 'The number of partitions is not allowed.' },
  INVALID_CONFIG_VALUE: {
    errorCode: 40,
    retriable: false,
    description: "A topic's configuration has a value that is not allowed.",
  },
  INVALID_REQUEST: {
    errorCode: 42,
    retriable: false,
    description: 'The request cannot be understood or contradicts itself.',
  },
  POLICY_VIOLATION: { errorCode: 44, retriable: false, description: 'The cluster forbids it.' },
  KAFKA_STORAGE_ERROR: {
    errorCode: 56,
    retriable: true,
    description: 'The log could not be written or read; nothing was acknowledged.',
  },
  SASL_AUTHENTICATION_FAILED: { errorCode: 58, retriable: false, description: 'The credentials are wrong.' },
  NON_EMPTY_GROUP: { errorCode: 68, retriable: false, description: 'The group still has members.' },
  GROUP_ID_NOT_FOUND: { errorCode: 69, retriable: false, description: 'The group does not exist.' },
  FENCED_INSTANCE_ID: { errorCode: 82, retriable: false, description: 'Another member took over this group instance.' },
  INVALID_RECORD: {
    errorCode: 87,
    retriable: false,
    description: "A record's value does not satisfy its topic's schema, or cannot be encoded.",
  },
} as const
