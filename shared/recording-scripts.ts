/** Lua of the recording's record: what each call of recording-store.ts does in Redis, all of it or nothing. */
import { recordingStates } from './recording.ts';

/** How long a beat vouches for its attempt, in milliseconds; an attempt beats every second. */
export const ALIVE_MS = 5000;
/** The same where it is told to end: who lives hears that at once, and beats; who is lost is found out sooner. */
const ALIVE_AT_THE_END_MS = 3000;
/** Events kept for each recording, so that a watcher who was cut off can resume. */
export const EVENTS_KEPT = 1000;
/** Idempotency keys are remembered for a day. */
const IDEMPOTENCY_SECONDS = 86_400;
const MINUTE_MS = 60_000;
/** State changes that may wait for one webhook, far above what a recording has; the oldest go first. */
const WEBHOOK_EVENTS_KEPT = 10_000;

/** Keys of what callers' webhooks have yet to be told. */
export const webhookKeys = (prefix: string) => ({
  /** The recording's record; its field `webhook` says that there is one. */
  record: (id: string) => `${prefix}:r:${id}`,
  /**
   * Sorted set of the recordings that have something to tell, by when: milliseconds since the epoch, 0 for at once. Also the
   * pub/sub channel on which it is announced that there is more.
   */
  due: `${prefix}:webhooks`,
  /** List of a recording's state changes, oldest first, JSON each. */
  waiting: (id: string) => `${prefix}:w:${id}`,
  /** The record of a recording that was removed before all was told. */
  removed: (id: string) => `${prefix}:wr:${id}`,
});

/** What is kept for each owner of recordings (an API key's name) has the names of what is kept for all, behind this. */
export const ownerPrefix = (prefix: string, owner: string): string => `${prefix}:owned:${owner}`;

/** Of every script, in the order of the preamble; a script's own follow. */
export const recordingKeys = (prefix: string, id: string): string[] => [
  webhookKeys(prefix).record(id),
  `${prefix}:e:${id}`,
  `${prefix}:beats`,
  `${prefix}:index`,
  webhookKeys(prefix).due,
  webhookKeys(prefix).waiting(id),
  webhookKeys(prefix).removed(id),
  // sorted sets of ids by milliseconds since the epoch: created without a job yet, to be removed, over
  `${prefix}:jobless`,
  `${prefix}:removing`,
  `${prefix}:ended`,
  // of those in beats that are overdue: until when somebody is seeing to it
  `${prefix}:told`,
  ...recordingStates.map((state) => `${prefix}:state:${state}`),
];

// a state change waits for the webhook from the moment it is one, however the process that made it or tells it ends
export const preamble = `
local record, events, beats, index, due, waiting, removed = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local jobless, removing, ended, told = KEYS[8], KEYS[9], KEYS[10], KEYS[11]
local sets = {}
for i, name in ipairs({${recordingStates.map((state) => `'${state}'`).join(',')}}) do sets[name] = KEYS[11 + i] end
local channel, id = ARGV[1], ARGV[2]
-- of the one clock that all attempts share, whatever their machines' clocks say
local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
local function emit(kind, data)
  local entry = redis.call('XADD', events, 'MAXLEN', '~', '${EVENTS_KEPT}', '*', 'type', kind, 'data', data)
  redis.call('PUBLISH', channel, kind)
  return entry
end
-- the owner's own sets stand beside those of all, and change with them: how many he has under way is never counted apart
local function owned(owner, name) return string.sub(index, 1, -6) .. 'owned:' .. owner .. ':' .. name end
local function move(from, to, at)
  local owner = redis.call('HGET', record, 'owner')
  if from then
    redis.call('ZREM', sets[from], id)
    if owner then redis.call('ZREM', owned(owner, 'state:' .. from), id) end
  end
  local created = redis.call('HGET', record, 'createdAt')
  redis.call('ZADD', sets[to], created, id)
  if owner then redis.call('ZADD', owned(owner, 'state:' .. to), created, id) end
  redis.call('HSET', record, 'state', to)
  if to == 'finishing' then redis.call('ZREM', beats, id) end
  if to == 'completed' or to == 'failed' or to == 'canceled' then
    redis.call('ZREM', beats, id)
    redis.call('ZADD', ended, clock(), id)
  end
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
    redis.call('PUBLISH', due, id)
  end
end
`;

export const createScript = `
local kept = KEYS[12 + ${recordingStates.length}]
if kept then
  local before = redis.call('HMGET', kept, 'id', 'body')
  if before[1] then
    if before[2] == ARGV[4] then return { 'repeated', before[1] } end
    return { 'conflict', '' }
  end
end
local owner, concurrent, perMinute = ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8])
if concurrent then
  local count = 0
  for _, state in ipairs({ 'queued', 'starting', 'recording', 'paused' }) do count = count + redis.call('ZCARD', owned(owner, 'state:' .. state)) end
  if count >= concurrent then return { 'too_many_recordings', '' } end
end
if perMinute then
  local recent, now = owned(owner, 'recent'), clock()
  redis.call('ZREMRANGEBYSCORE', recent, 0, now - ${MINUTE_MS})
  local count = redis.call('ZCARD', recent)
  if count >= perMinute then
    -- more than one too many where the limit was lowered
    local oldest = redis.call('ZRANGE', recent, count - perMinute, count - perMinute, 'WITHSCORES')
    return { 'too_many_requests', '', tonumber(oldest[2]) + ${MINUTE_MS} - now }
  end
  redis.call('ZADD', recent, now, id)
  redis.call('PEXPIRE', recent, ${MINUTE_MS})
end
if kept then
  redis.call('HSET', kept, 'id', id, 'body', ARGV[4])
  redis.call('EXPIRE', kept, ${IDEMPOTENCY_SECONDS})
end
for i = 9, #ARGV, 2 do redis.call('HSET', record, ARGV[i], ARGV[i + 1]) end
redis.call('ZADD', index, ARGV[5], id)
if owner ~= '' then redis.call('ZADD', owned(owner, 'index'), ARGV[5], id) end
redis.call('ZADD', jobless, clock(), id)
move(nil, 'queued', ARGV[3])
return { 'created', id }
`;

// of somebody else's as of one that isn't there, in as little time
export const readScript = `
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return {} end
return redis.call('HGETALL', KEYS[1])
`;

export const changeScript = `
local now = redis.call('HMGET', record, 'state', 'desired', 'attempt', 'released')
local state, desired = now[1], now[2]
if not state then return { 'missing' } end
if ARGV[4] ~= '' and ARGV[4] ~= now[3] then return { 'fenced', state, desired } end
if not string.find(ARGV[5], ',' .. state .. ',', 1, true) then return { 'refused', state, desired } end
if ARGV[7] ~= '' and not string.find(ARGV[7], ',' .. desired .. ',', 1, true) then return { 'refused', state, desired } end
for i = 8, #ARGV, 2 do
  -- null: not any more
  if ARGV[i + 1] == '' then redis.call('HDEL', record, ARGV[i]) else redis.call('HSET', record, ARGV[i], ARGV[i + 1]) end
  if ARGV[i] == 'desired' and ARGV[i + 1] == 'deleted' then redis.call('ZADD', removing, 'NX', clock(), id) end
  if ARGV[i] == 'desired' then
    desired = ARGV[i + 1]
    redis.call('PUBLISH', channel, 'desired')
    if desired ~= 'recording' and desired ~= 'paused' then
      -- between two attempts nobody listens: who looks for the overdue sees to it at once
      local latest = clock() + (now[4] and 0 or ${ALIVE_AT_THE_END_MS})
      local deadline = redis.call('ZSCORE', beats, id)
      if deadline and tonumber(deadline) > latest then redis.call('ZADD', beats, latest, id) end
      redis.call('ZREM', told, id)
    end
  end
end
-- who ends it himself has nothing on its way any more
if ARGV[6] == 'finishing' and ARGV[4] ~= '' then redis.call('HSET', record, 'released', ARGV[4]) end
if ARGV[6] ~= '' and ARGV[6] ~= state then
  move(state, ARGV[6], ARGV[3])
  state = ARGV[6]
end
return { 'changed', state, desired }
`;

/** States in which an attempt runs, or the next one is awaited. */
const isRunning = `(state == 'starting' or state == 'recording' or state == 'paused')`;

// a queued recording, or one whose attempt gave it up or stopped beating (believed with ARGV[4], or for attempt ARGV[5]), becomes the caller's
export const claimScript = `
local now = redis.call('HMGET', record, 'state', 'desired', 'released', 'attempt')
local state, desired = now[1], now[2]
if not state or (desired ~= 'recording' and desired ~= 'paused') then return { 0 } end
local deadline = redis.call('ZSCORE', beats, id)
local silent = not deadline or tonumber(deadline) <= clock()
local lost = ${isRunning} and (now[3] or (silent and (ARGV[4] == '1' or tonumber(ARGV[5]) == now[4] + 1)))
if state ~= 'queued' and not lost then return { 0 } end
local attempt = redis.call('HINCRBY', record, 'attempt', 1)
redis.call('HINCRBY', record, 'futile', 1)
redis.call('HDEL', record, 'released')
redis.call('ZREM', jobless, id)
redis.call('ZREM', told, id)
redis.call('ZADD', beats, clock() + ${ALIVE_MS}, id)
if state == 'starting' then redis.call('PUBLISH', channel, 'state') else move(state, 'starting', ARGV[3]) end
return { attempt, clock() }
`;

export const beatScript = `
local now = redis.call('HMGET', record, 'state', 'desired', 'attempt', 'released')
if not now[1] then return { 'missing' } end
-- one that was given up is another's to take
if now[3] ~= ARGV[4] or now[4] then return { 'fenced', now[1], now[2] } end
local state = now[1]
if ${isRunning} then redis.call('ZADD', beats, clock() + ${ALIVE_MS}, id) end
if ARGV[5] ~= '' then
  redis.call('HSET', record, 'stats', ARGV[5], 'duration', ARGV[6])
  if ARGV[7] == '1' then redis.call('HSET', record, 'futile', 0) end
  emit('stats', ARGV[5])
end
return { 'changed', now[1], now[2] }
`;

// the attempt is over and the recording is not: from ARGV[5] milliseconds on it may be claimed
export const releaseScript = `
local now = redis.call('HMGET', record, 'state', 'desired', 'attempt')
local state, desired = now[1], now[2]
if not state then return { 'missing' } end
if now[3] ~= ARGV[4] then return { 'fenced', state, desired } end
if not ${isRunning} then return { 'refused', state, desired } end
if ARGV[6] ~= '' then redis.call('HSET', record, 'stats', ARGV[6], 'duration', ARGV[7]) end
if ARGV[8] == '1' then redis.call('HSET', record, 'futile', 0) end
redis.call('HSET', record, 'released', ARGV[4])
redis.call('ZADD', beats, clock() + ARGV[5], id)
redis.call('ZREM', told, id)
if state ~= 'starting' then move(state, 'starting', ARGV[3]) end
return { 'changed', 'starting', desired }
`;

/** What time it is, how many deadlines have passed, and when the next one does. */
export const deadlinesScript = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local next = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. string.format('%.0f', now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
return { now, redis.call('ZCOUNT', KEYS[1], 0, now), next[2] or '' }
`;

// those whose deadline has passed, each told to one asker for ARGV[2] milliseconds: several look, and one acts
export const overdueScript = `
local beats, told = KEYS[1], KEYS[2]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local found = {}
local all = redis.call('ZRANGEBYSCORE', beats, 0, now, 'WITHSCORES')
for i = 1, #all, 2 do
  local held = redis.call('ZSCORE', told, all[i])
  if #found < tonumber(ARGV[1]) and (not held or tonumber(held) <= now) then
    redis.call('ZADD', told, now + ARGV[2], all[i])
    found[#found + 1] = { all[i], now - all[i + 1] }
  end
end
redis.call('ZREMRANGEBYSCORE', told, 0, now - 60000)
return found
`;

// nobody runs it: as a change to 'finishing' where the same attempt is still the last and still overdue
export const orphanScript = `
local now = redis.call('HMGET', record, 'state', 'desired', 'attempt', 'released')
local state, desired = now[1], now[2]
if not state then redis.call('ZREM', beats, id) return { 'missing' } end
if not ${isRunning} then redis.call('ZREM', beats, id) return { 'refused', state, desired } end
local deadline = redis.call('ZSCORE', beats, id)
if now[3] ~= ARGV[4] or (deadline and tonumber(deadline) > clock()) then return { 'fenced', state, desired } end
if ARGV[5] ~= '' and redis.call('HEXISTS', record, 'error') == 0 then redis.call('HSET', record, 'error', ARGV[5]) end
move(state, 'finishing', ARGV[3])
return { 'changed', 'finishing', desired }
`;

// a moment of the recording's timeline, which stands still while it is paused
export const markScript = `
local now = redis.call('HMGET', record, 'state', 'startedAt', 'pausedMs', 'pausedAt', 'markers', 'desired')
local state = now[1]
if not state then return { 'missing' } end
if not ${isRunning} or not now[2] or (now[6] ~= 'recording' and now[6] ~= 'paused') then return { 'refused', state } end
local at = (tonumber(now[4] or clock()) - tonumber(now[2]) - tonumber(now[3] or 0)) / 1000
if at < 0 then at = 0 end
local markers = now[5] and cjson.decode(now[5]) or {}
if #markers >= tonumber(ARGV[5]) then return { 'full', state } end
markers[#markers + 1] = { label = ARGV[4], at = at }
redis.call('HSET', record, 'markers', cjson.encode(markers))
emit('log', cjson.encode({ level = 'info', message = 'marker: ' .. ARGV[4], at = ARGV[3] }))
return { 'changed', state, tostring(at) }
`;

/** A lost worker that comes back has nothing to say. */
const isOfNewest = (argument: number) => `(ARGV[${argument}] == '' or ARGV[${argument}] == redis.call('HGET', record, 'attempt'))`;

export const warnScript = `
if redis.call('EXISTS', record) == 0 or not ${isOfNewest(6)} then return 0 end
if redis.call('HSETNX', record, 'warning:' .. ARGV[4], ARGV[5]) == 0 then return 0 end
emit('log', cjson.encode({ level = 'warn', message = ARGV[5], at = ARGV[3] }))
return 1
`;

export const pushScript = `
if redis.call('EXISTS', record) == 0 or not ${isOfNewest(7)} then return 0 end
local field = 'push:' .. ARGV[4]
if redis.call('HGET', record, field) == ARGV[5] then return 0 end
redis.call('HSET', record, field, ARGV[5])
local data = cjson.decode(ARGV[6])
data.at = ARGV[3]
emit('push', cjson.encode(data))
return 1
`;

export const logScript = `
if redis.call('EXISTS', record) == 0 or not ${isOfNewest(5)} then return 0 end
emit('log', cjson.encode({ level = 'info', message = ARGV[4], at = ARGV[3] }))
return 1
`;

export const removeScript = `
local state, owner = redis.call('HGET', record, 'state'), redis.call('HGET', record, 'owner')
if state then redis.call('ZREM', sets[state], id) end
redis.call('ZREM', index, id)
if owner then
  redis.call('ZREM', owned(owner, 'index'), id)
  if state then redis.call('ZREM', owned(owner, 'state:' .. state), id) end
end
if state and redis.call('EXISTS', waiting) == 1 then redis.call('RENAME', record, removed) end
redis.call('DEL', record, events)
for _, set in ipairs({ beats, jobless, removing, ended, told }) do redis.call('ZREM', set, id) end
redis.call('PUBLISH', channel, 'state')
return 1
`;
