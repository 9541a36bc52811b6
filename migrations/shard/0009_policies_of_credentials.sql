SELECT meta.protect('shard.credentials');
