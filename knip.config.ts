import type { KnipConfig } from 'knip'

const config: KnipConfig = {
  // What is started by name: by npm, by a platform, by a test that needs a process of its own.
  entry: [
    'src/index.ts',
    'functions/{worker,produce,consume,gateway}.ts',
    'scripts/{start,demo,build-lambda,write-configuration}.ts',
    'scripts/lambda/bootstrap.ts',
    'bench/run.ts',
    'examples/github-webhooks/{worker,lambda}.ts',
  ],
  project: ['{src,functions,scripts,test,bench,examples}/**/*.ts', '*.config.ts'],
}

export default config
