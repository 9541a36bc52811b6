SELECT meta.protect('shard.devices');
