SELECT meta.protect('shard.identifiers');
