SELECT meta.protect('shard.audit_head');
