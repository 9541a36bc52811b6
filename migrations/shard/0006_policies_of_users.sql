-- A table a migration: no more than one is locked at a time.
SELECT meta.protect('shard.users');
