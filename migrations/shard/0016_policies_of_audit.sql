SELECT pg_advisory_xact_lock(7237123);  -- no partition is made meanwhile, by the rules before
SELECT meta.protect('shard.audit');
