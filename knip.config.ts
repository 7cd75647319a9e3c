import type { KnipConfig } from 'knip'

const config: KnipConfig = {
  // What is started by its path: by npm, by a platform, by a test or bench that needs a process of its own.
  entry: [
    'functions/{worker,produce,consume,consumer,redrive,gateway}.ts',
    'examples/*/{worker,lambda,story}.ts',
    'scripts/{start,demo,redrive,kafka,test-kafka,build-lambda,ci-summary,write-configuration,write-file-map}.ts',
    'scripts/lambda/bootstrap.ts',
    'prove/run.ts',
    'prove/log-power-loss/writer.ts',
    'prove/redrive-kill/app.ts',
    'bench/workers/*.ts',
    'test/log/{holder,producer}.ts',
    'test/idempotency/{in-worker,contender}.ts',
    'test/support/{crashing-consumer,put-letters,slow-consumer}.ts',
    'test/support/letters-worker/worker.ts',
  ],
  project: ['{src,functions,scripts,test,bench,prove,examples}/**/*.ts', '*.config.ts'],
  vitest: { config: ['vitest.config.ts', 'vitest.kafka.config.ts'] },
  // A type may be named for its readers where only its own file needs it. A value may not.
  ignoreExportsUsedInFile: { interface: true, type: true },
  ignoreDependencies: [
    // Its files are read from its folder and served at /docs.
    'swagger-ui-dist',
    // Programs: started by their path, by .ci/run and by those who deploy.
    'wrangler',
    'osls',
  ],
  // Debian's util-linux has taskset, which the bench goes without where it is missing; Kafka runs on Java; proofs say that
  // they need strace.
  ignoreBinaries: ['taskset', 'java', 'keytool', 'strace'],
}

export default config
