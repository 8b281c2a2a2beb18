/** Lua of the recording's record: what each call of recording-store.ts does in Redis, all of it or nothing. */
import { recordingStates } from './recording.ts';

/** How long a beat vouches for its attempt, in milliseconds; an attempt beats every second. */
export const ALIVE_MS = 5000;
/** Events kept for each recording, so that a watcher who was cut off can resume. */
export const EVENTS_KEPT = 1000;
/** Idempotency keys are remembered for a day. */
const IDEMPOTENCY_SECONDS = 86_400;
/** State changes that may wait for one webhook, far above what a recording has; the oldest go first. */
const WEBHOOK_EVENTS_KEPT = 10_000;

/** Keys of what callers' webhooks have yet to be told. */
export const webhookKeys = (prefix: string) => ({
  /** The recording's record; its field `webhook` says that there is one. */
  record: (id: string) => `${prefix}:r:${id}`,
  /** Sorted set of the recordings that have something to tell, by when: milliseconds since the epoch, 0 for at once. */
  due: `${prefix}:webhooks`,
  /** List of a recording's state changes, oldest first, JSON each. */
  waiting: (id: string) => `${prefix}:w:${id}`,
  /** The record of a recording that was removed before all was told. */
  removed: (id: string) => `${prefix}:wr:${id}`,
});

/** Of every script, in the order of the preamble; a script's own follow. */
export const recordingKeys = (prefix: string, id: string): string[] => [
  webhookKeys(prefix).record(id),
  `${prefix}:e:${id}`,
  `${prefix}:alive:${id}`,
  `${prefix}:index`,
  webhookKeys(prefix).due,
  webhookKeys(prefix).waiting(id),
  webhookKeys(prefix).removed(id),
  ...recordingStates.map((state) => `${prefix}:state:${state}`),
];

// a state change waits for the webhook from the moment it is one, however the process that made it or tells it ends
export const preamble = `
local record, events, alive, index, due, waiting, removed = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local sets = {}
for i, name in ipairs({${recordingStates.map((state) => `'${state}'`).join(',')}}) do sets[name] = KEYS[7 + i] end
local channel, id = ARGV[1], ARGV[2]
local function emit(kind, data)
  local entry = redis.call('XADD', events, 'MAXLEN', '~', '${EVENTS_KEPT}', '*', 'type', kind, 'data', data)
  redis.call('PUBLISH', channel, kind)
  return entry
end
local function move(from, to, at)
  if from then redis.call('ZREM', sets[from], id) end
  redis.call('ZADD', sets[to], redis.call('HGET', record, 'createdAt'), id)
  redis.call('HSET', record, 'state', to)
  local data = { state = to, at = at }
  local problem = redis.call('HGET', record, 'error')
  if problem then data.error = cjson.decode(problem) end
  local entry = emit('state', cjson.encode(data))
  if redis.call('HEXISTS', record, 'webhook') == 1 then
    data.id, data.tries = id .. '_' .. entry, 0
    redis.call('RPUSH', waiting, cjson.encode(data))
    redis.call('LTRIM', waiting, -${WEBHOOK_EVENTS_KEPT}, -1)
    -- one that is due later is being told, or retried
    redis.call('ZADD', due, 'NX', 0, id)
  end
end
`;

export const createScript = `
local kept = KEYS[8 + ${recordingStates.length}]
if kept then
  local before = redis.call('HMGET', kept, 'id', 'body')
  if before[1] then
    if before[2] == ARGV[4] then return { 'repeated', before[1] } end
    return { 'conflict', '' }
  end
  redis.call('HSET', kept, 'id', id, 'body', ARGV[4])
  redis.call('EXPIRE', kept, ${IDEMPOTENCY_SECONDS})
end
for i = 6, #ARGV, 2 do redis.call('HSET', record, ARGV[i], ARGV[i + 1]) end
redis.call('ZADD', index, ARGV[5], id)
move(nil, 'queued', ARGV[3])
return { 'created', id }
`;

export const changeScript = `
local now = redis.call('HMGET', record, 'state', 'desired', 'attempt')
local state, desired = now[1], now[2]
if not state then return { 'missing' } end
if ARGV[4] ~= '' and ARGV[4] ~= now[3] then return { 'fenced', state, desired } end
if not string.find(ARGV[5], ',' .. state .. ',', 1, true) then return { 'refused', state, desired } end
for i = 7, #ARGV, 2 do
  redis.call('HSET', record, ARGV[i], ARGV[i + 1])
  if ARGV[i] == 'desired' then
    desired = ARGV[i + 1]
    redis.call('PUBLISH', channel, 'desired')
  end
end
if ARGV[6] ~= '' and ARGV[6] ~= state then
  move(state, ARGV[6], ARGV[3])
  state = ARGV[6]
end
return { 'changed', state, desired }
`;

// a queued recording, or one whose attempt stopped beating, becomes the caller's
export const claimScript = `
local now = redis.call('HMGET', record, 'state', 'desired')
local state, desired = now[1], now[2]
if not state or desired ~= 'recording' then return 0 end
local lost = (state == 'starting' or state == 'recording') and redis.call('EXISTS', alive) == 0
if state ~= 'queued' and not lost then return 0 end
local attempt = redis.call('HINCRBY', record, 'attempt', 1)
redis.call('SET', alive, attempt, 'PX', ${ALIVE_MS})
move(state, 'starting', ARGV[3])
return attempt
`;

export const beatScript = `
local now = redis.call('HMGET', record, 'state', 'desired', 'attempt')
if not now[1] then return { 'missing' } end
if now[3] ~= ARGV[4] then return { 'fenced', now[1], now[2] } end
redis.call('SET', alive, ARGV[4], 'PX', ${ALIVE_MS})
if ARGV[5] ~= '' then
  redis.call('HSET', record, 'stats', ARGV[5], 'duration', ARGV[6])
  emit('stats', ARGV[5])
end
return { 'changed', now[1], now[2] }
`;

export const warnScript = `
if redis.call('EXISTS', record) == 0 then return 0 end
if redis.call('HSETNX', record, 'warning:' .. ARGV[4], ARGV[5]) == 0 then return 0 end
emit('log', cjson.encode({ level = 'warn', message = ARGV[5], at = ARGV[3] }))
return 1
`;

export const logScript = `
if redis.call('EXISTS', record) == 0 then return 0 end
emit('log', cjson.encode({ level = 'info', message = ARGV[4], at = ARGV[3] }))
return 1
`;

export const removeScript = `
local state = redis.call('HGET', record, 'state')
if state then redis.call('ZREM', sets[state], id) end
redis.call('ZREM', index, id)
if state and redis.call('EXISTS', waiting) == 1 then redis.call('RENAME', record, removed) end
redis.call('DEL', record, events, alive)
redis.call('PUBLISH', channel, 'state')
return 1
`;
