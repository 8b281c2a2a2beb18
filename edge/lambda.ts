/**
 * The edge on AWS Lambda, behind API Gateway (REST or HTTP), an Application Load Balancer or a Function URL.
 * `npm run bundle:lambda` makes it one file.
 */
import { handle, type LambdaContext, type LambdaEvent } from 'hono/aws-lambda';
import { createLog, levelOf } from '../shared/log.ts';
import { readRedisTls } from '../shared/redis-tls.ts';
import { placeEvent } from './lambda-event.ts';
import { createServerless, inlineKeys, readServerlessConfig } from './serverless.ts';

const log = createLog(levelOf(process.env['LOG_LEVEL']), (line) => process.stdout.write(`${line}\n`));
const config = { ...readServerlessConfig(process.env), ...(await readRedisTls(process.env)) };
const serverless = createServerless(config, inlineKeys(config.apiKeys, log), log);

export const handler = async (received: LambdaEvent, context?: LambdaContext) => {
  const { event, facts } = placeEvent(received);
  // the sandbox is frozen between two requests, for minutes maybe, and what lies between it and Redis forgets idle
  // connections without a word: one that is kept would time out first
  const { app, close } = serverless.open({ metrics: null, factsOf: () => facts });
  try {
    return await handle(app)(event, context);
  } finally {
    await close();
  }
};
