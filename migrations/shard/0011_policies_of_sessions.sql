SELECT meta.protect('shard.sessions');
