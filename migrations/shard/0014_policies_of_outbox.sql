SELECT meta.protect('shard.outbox');
