//! `auth-node migrate`: the directory first, then every shard that it lists. Safe to run again at any time.
use std::time::Duration;

use shard_router::Login;
use shard_router::directory::Directory;
use shard_router::migrate::{migrate_directory, migrate_shards};

use crate::config::Config;
use crate::{Failure, app, secrets};

const TIMEOUT: Duration = Duration::from_secs(10);

pub async fn run(config: &Config) -> Result<(), Failure> {
    let password = secrets::password(&config.secrets.dir, "postgres-admin.password")?;
    let login = Login { user: config.postgres.admin_user.clone(), password };
    let address = app::directory_address(config);
    let failed = |e: shard_router::migrate::MigrateError| Failure::Failed(e.to_string());
    migrate_directory(&address, &login).await.map_err(failed)?;
    println!("directory: up to date");
    for shard in migrate_shards(&Directory::new(address, login, TIMEOUT)).await.map_err(failed)? {
        println!("shard {}: up to date at migration {}", shard.shard_id, shard.version);
    }
    Ok(())
}
