SELECT meta.protect('shard.login_attempts');
