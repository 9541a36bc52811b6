//! Compare-and-set in Lua: the only way in which a session's entry is written.
//!
//! An entry is text: `L <version> <checked_at µs> <json>` (live) or `D <version> 0` (tombstone). Versions and times stay
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
