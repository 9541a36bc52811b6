SELECT meta.protect('shard.user_identifiers');
