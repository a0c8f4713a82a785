"""Shared budgets in Valkey or Redis: one script a renewal, on the server's clock.

The script does what `account.renew` does; a test compares the two. Its keys are a hash of the
figures, one of the holdings by process, and a sorted set of these by the time they expire.
"""

from __future__ import annotations

from hashlib import sha1
from importlib import import_module
from time import monotonic, sleep
from typing import Any, Final

from langmeter.budgets.shared.account import DEADLINE, SHORT, Reply, Request, Stale
from langmeter.errors import StoreError

SCRIPT: Final = """
local account, holdings, ends_of = KEYS[1], KEYS[2], KEYS[3]
local holder = ARGV[1]
local r = {}
for i, name in ipairs({'spent', 'known', 'reserved', 'keep', 'need', 'want', 'begins', 'ends',
    'limit', 'joins', 'set_limit', 'reset', 'leave', 'lease', 'hold', 'short'}) do
  r[name] = tonumber(ARGV[i + 1])
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[18] ~= '' then now = tonumber(ARGV[18]) end
local function text(n) return string.format('%.0f', n) end
if now < r.begins or now >= r.ends then return {text(now)} end

local a, names = {}, {'limit', 'configured', 'spent', 'leased', 'reserved', 'begins', 'ends',
  'reported', 'full', 'short'}
for i, value in ipairs(redis.call('HMGET', account, unpack(names))) do
  a[names[i]] = tonumber(value or 0)
end
local function anew() a.spent, a.reported, a.full, a.short = 0, 0, 0, 0 end
local function set_limit(limit)
  a.limit = limit
  a.reported = math.min(a.reported, a.spent / limit)
  if a.spent < limit then a.full = 0 end
  a.short = 0
end
if now >= a.ends then
  anew()
  a.begins, a.ends = r.begins, r.ends
end
if a.limit == 0 or (r.joins > 0 and r.limit ~= a.configured) then
  a.configured = r.limit
  set_limit(r.limit)
end
if r.set_limit > 0 then set_limit(r.set_limit) end

-- A holding: spent, slice, reserved, renewed, dead.
local function held(name)
  local line, h = redis.call('HGET', holdings, name), {}
  if not line then return nil end
  for word in string.gmatch(line, '%S+') do h[#h + 1] = tonumber(word) end
  return h
end
local function hold(name, h, expires)
  for i = 1, 5 do h[i] = text(h[i]) end
  redis.call('HSET', holdings, name, table.concat(h, ' '))
  redis.call('ZADD', ends_of, text(expires), name)
end
local function drop(name)
  redis.call('HDEL', holdings, name)
  redis.call('ZREM', ends_of, name)
end
for _, name in ipairs(redis.call('ZRANGEBYSCORE', ends_of, '-inf', text(now))) do
  if name ~= holder then
    local h = held(name)
    local left = h[5] == 0 and h[3] or 0
    a.leased = a.leased - (h[2] - left)
    if left > 0 then
      local expires = h[4] + r.hold
      hold(name, {h[1], left, h[3], h[4], 1}, expires)
    else
      a.reserved = a.reserved - h[3]
      drop(name)
    end
  end
end

local own = held(holder)
local delta = r.spent - (own and own[1] or r.known)
local living = redis.call('HLEN', holdings) + (own and 0 or 1)
own = own or {0, 0, 0, 0, 0}
a.spent = math.max(0, a.spent + delta)
if r.reset > 0 then anew() end
local keep = math.max(math.min(r.keep, own[2] - delta), r.reserved)
local others = a.leased - own[2]
local free = a.limit - a.spent - others
local share = math.floor(math.max(free - r.reserved, 0) / (2 * living))
local need, granted = 0, true
if r.need > 0 then
  need = r.need + r.keep - keep
  granted = need <= free - keep
end
if r.leave > 0 then keep = r.reserved end
local more = math.min(r.want, share) - (keep - r.reserved)
more = math.max(granted and need or 0, more, 0)
more = math.min(more, math.max(free - keep, 0))
local slice = keep + more
a.leased = others + slice
a.reserved = a.reserved + r.reserved - own[3]
if r.leave > 0 and slice == 0 then
  drop(holder)
else
  hold(holder, {r.spent, slice, r.reserved, now, 0}, now + r.lease)
end
if not granted then a.short = now + r.short end

local crossed, reported = {}, a.reported
for i = 19, #ARGV do
  local fraction = tonumber(ARGV[i])
  local reached = a.spent >= (fraction - 1e-12) * a.limit
  if fraction < 1 then
    if reached and fraction > a.reported then
      crossed[#crossed + 1] = i - 19
      reported = math.max(reported, fraction)
    end
  elseif (reached or not granted) and a.full == 0 then
    crossed[#crossed + 1] = i - 19
    a.full = 1
  end
end
a.reported = reported
local row = {}
for _, name in ipairs(names) do
  row[#row + 1] = name
  row[#row + 1] = name == 'reported' and string.format('%.17g', a.reported) or text(a[name])
end
redis.call('HSET', account, unpack(row))
return {text(now), granted and '1' or '0', text(slice), text(share), text(a.spent),
  text(a.reserved), text(a.limit), text(a.begins), text(a.ends), now < a.short and '1' or '0',
  table.concat(crossed, ' ')}
"""

_DIGEST: Final = sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
#: Seconds between two attempts to connect, after a first one that is made at once.
_PAUSE: Final = 0.1


class RedisStore:
    """Budgets in a server of Valkey or Redis.

    Args:
        url: as redis-py takes it; it is imported when the store is first used.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._client: Any = None

    def renew(
        self, key: str, request: Request, timeout: float, now: int | None = None
    ) -> Reply | Stale:
        """Renew a lease; raises StoreError where the server does not answer within `timeout` s.

        `now` takes the place of the server's clock, for tests.
        """
        deadline = monotonic() + timeout
        try:
            redis: Any = import_module("redis")
        except ImportError as error:
            raise StoreError(f"{error}; install langmeter[redis]") from error
        keys = [f"langmeter:{{{key}}}{part}" for part in ("", ":holdings", ":expires")]
        r = request
        numbers = (
            *(r.spent, r.known, r.reserved, r.keep, r.need, r.want, r.begins, r.ends, r.limit),
            *(int(r.joins), r.set_limit, int(r.reset), int(r.leave), r.lease, r.hold, SHORT),
        )
        words = (*keys, r.holder, *numbers, "" if now is None else now, *r.at)
        try:
            return _read(self._run(redis, words, deadline))
        except (redis.RedisError, OSError, ValueError, TypeError) as error:
            raise StoreError(f"{_shown(self._url)}: {error}") from error

    def _run(self, redis: Any, words: tuple[object, ...], deadline: float) -> Any:
        """Run the script; where a connection is lost, once more at once, and then at intervals.

        A renewal that is done twice does no harm: it reports sums.
        """
        client, pause = self._connected(redis), 0.0
        while True:
            try:
                try:
                    return client.evalsha(_DIGEST, 3, *words)
                except redis.exceptions.NoScriptError:
                    return client.eval(SCRIPT, 3, *words)
            except (redis.ConnectionError, redis.TimeoutError):
                if monotonic() + pause >= deadline:
                    raise
                sleep(pause)
                pause = _PAUSE

    def _connected(self, redis: Any) -> Any:
        """Return the client, whose pool connects when it is used, and anew in a forked child."""
        if self._client is None:
            # Version 2 of the protocol takes fewer round trips to connect.
            client = redis.Redis.from_url(self._url, protocol=2)
            retry = import_module("redis.retry").Retry(
                import_module("redis.backoff").NoBackoff(), 0
            )
            # After those of the address: no wait may be longer than that of a call.
            client.connection_pool.connection_kwargs.update(
                decode_responses=True,
                socket_timeout=DEADLINE,
                socket_connect_timeout=DEADLINE,
                retry=retry,
                retry_on_timeout=False,
            )
            self._client = client
        return self._client


def _read(row: Any) -> Reply | Stale:
    """Return what the script answered; raises ValueError or TypeError for anything else."""
    if len(row) == 1:
        return Stale(int(row[0]))
    *amounts, short, crossed = row
    moment, granted, *others = map(int, amounts)
    places = tuple(map(int, crossed.split()))
    return Reply._make((moment, bool(granted), *others, short == "1", places))


def _shown(url: str) -> str:
    """Return an address without user, password and options."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('?')[0].rpartition('@')[2]}"
