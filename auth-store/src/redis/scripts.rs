//! Compare-and-set in Lua: the only way in which a session's entry, or a limit's, is written.
//!
//! A session's entry is text: `L <version> <checked_at µs> <json>` (live) or `D <version> 0` (tombstone). Versions and times stay
//! below 2^53, so that Lua's numbers hold them exactly.

/// KEYS[1] · ARGV: version, `checked_at`, entry, TTL in ms. 1: written. Refused by a higher version, by a tombstone of
/// the same version, and by a copy of the same version that was checked no earlier.
pub(super) const PUT: &str = r"
local held = redis.call('GET', KEYS[1])
if held then
  local kind, version, checked = string.match(held, '^(%a) (%d+) (%d+)')
  if kind then
    version = tonumber(version)
    local offered = tonumber(ARGV[1])
    if version > offered then return 0 end
    if version == offered and (kind == 'D' or tonumber(checked) >= tonumber(ARGV[2])) then return 0 end
  end
end
redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
return 1
";

/// KEYS[1] · ARGV: version, entry, TTL in ms. 1: written. Only a higher version stays.
pub(super) const BURY: &str = r"
local held = redis.call('GET', KEYS[1])
if held then
  local version = string.match(held, '^%a (%d+)')
  if version and tonumber(version) > tonumber(ARGV[1]) then return 0 end
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
";

/// KEYS[1] · ARGV: limit, slot in ms, slots of a window. Answers granted (1 or 0), how many are left, ms until there are
/// more. The value is `<slot>:<granted>` for each slot that still counts, oldest first.
pub(super) const TAKE: &str = r"
local limit, slot_ms, slots = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local slot = math.floor(now / slot_ms)
local kept, sum = {}, 0
for at, n in string.gmatch(redis.call('GET', KEYS[1]) or '', '(%d+):(%d+)') do
  at, n = tonumber(at), tonumber(n)
  if at >= slot - slots then
    kept[#kept + 1] = { at, n }
    sum = sum + n
  end
end
local function over(at) return (at + slots + 1) * slot_ms - now end
if sum >= limit then
  local wait = over(slot)
  for _, entry in ipairs(kept) do
    sum = sum - entry[2]
    wait = over(entry[1])
    if sum < limit then break end
  end
  return { 0, 0, wait }
end
local last = kept[#kept]
if last and last[1] >= slot then last[2] = last[2] + 1 else kept[#kept + 1] = { slot, 1 } end
local parts = {}
for i, entry in ipairs(kept) do parts[i] = string.format('%.0f:%.0f', entry[1], entry[2]) end
redis.call('SET', KEYS[1], table.concat(parts, ' '), 'PX', string.format('%.0f', (slots + 1) * slot_ms))
return { 1, limit - sum - 1, over(kept[1][1]) }
";
