SELECT meta.protect('shard.idempotency');
