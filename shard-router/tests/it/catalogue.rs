//! What must hold for every table of a shard, also those that others write.

use crate::world::{Servers, World, execute};

pub async fn every_table_with_a_bucket_is_protected(servers: &Servers) {
    let world = World::new(servers, "catalogue").await;
    let mut owner = world.on_shard(1).await;
    let tables: Vec<(String, bool, bool, bool, bool)> = sqlx::query_as(
        "SELECT c.oid::regclass::text,
                EXISTS (SELECT FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
                        WHERE t.tgrelid = c.oid AND t.tgname = 'owner_check' AND t.tgenabled = 'O'
                          AND p.oid = 'meta.check_owner'::regproc
                          AND t.tgtype = 1 | 4 | 8 | 16)  -- row, after, insert, delete, update
                AND EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgname = 'bucket_fixed' AND t.tgenabled = 'O'),
                EXISTS (SELECT FROM pg_index i
                        JOIN pg_attribute k ON k.attrelid = c.oid AND k.attnum = i.indkey[0]
                        WHERE i.indrelid = c.oid AND i.indisprimary AND k.attname = 'bucket'),
                c.relreplident IN ('d', 'f'),
                c.relrowsecurity AND CASE WHEN c.relispartition
                    THEN NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid)
                        AND NOT has_table_privilege('tessera_app', c.oid, 'SELECT, INSERT, UPDATE, DELETE')
                    ELSE (SELECT string_agg(p.polcmd::text || (pg_get_expr(coalesce(p.polqual, p.polwithcheck), p.polrelid)
                                LIKE '%meta.bucket_owner o%o.bucket = ' || c.relname || '.bucket%')::int, ' ' ORDER BY p.polcmd)
                          FROM pg_policy p WHERE p.polrelid = c.oid) = 'a1 d1 r0 w1' END
         FROM pg_class c
         JOIN pg_namespace n ON n.oid = c.relnamespace
         JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'bucket' AND NOT a.attisdropped
         WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('meta', 'pg_catalog', 'information_schema')
         ORDER BY 1",
    )
    .fetch_all(&mut owner)
    .await
    .unwrap();
    for (table, trigger, key, identity, policies) in &tables {
        assert!(*trigger, "{table} lacks the ownership triggers: SELECT meta.protect('{table}')");
        assert!(*policies, "{table} lacks the ownership policies, or nodes may name this partition");
        assert!(*key, "the primary key of {table} does not start with bucket");
        assert!(*identity, "the replica identity of {table} is not its primary key");
    }
    assert!(tables.len() >= 10, "{tables:?}");
    let free: bool =
        sqlx::query_scalar("SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = 'tessera_app'")
            .fetch_one(&mut owner)
            .await
            .unwrap();
    assert!(!free, "policies bind the nodes' role");

    // A view checks its owner's policies, and the trigger asks for the caller's.
    let views: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT v.oid::regclass::text FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid
         JOIN pg_class v ON v.oid = r.ev_class AND v.relkind IN ('v', 'm')
         JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attname = 'bucket'
         WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> v.oid
            AND v.relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)",
    )
    .fetch_all(&mut owner)
    .await
    .unwrap();
    assert!(views.is_empty(), "no view of a table with a bucket: {views:?}");

    let elsewhere: Vec<String> = sqlx::query_scalar(
        "SELECT c.oid::regclass::text FROM pg_class c WHERE c.relnamespace = 'shard'::regnamespace
         AND c.relkind IN ('r', 'p', 'S')
         AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'bucket')",
    )
    .fetch_all(&mut owner)
    .await
    .unwrap();
    assert!(
        elsewhere.is_empty(),
        "no table without a bucket and no sequence: they do not move: {elsewhere:?}"
    );
}

pub async fn protect_refuses_a_key_that_does_not_start_with_the_bucket(servers: &Servers) {
    let world = World::new(servers, "protect").await;
    let mut owner = world.on_shard(1).await;
    for table in ["(id int, bucket int, PRIMARY KEY (id, bucket))", "(bucket int, id int)"] {
        let attempt =
            format!("BEGIN; CREATE TABLE shard.t {table}; SELECT meta.protect('shard.t'); ROLLBACK");
        let error = execute(&mut owner, &attempt).await.unwrap_err();
        assert!(error.to_string().contains("primary key that starts with bucket"), "{error}");
        execute(&mut owner, "ROLLBACK").await.unwrap();
    }
}
