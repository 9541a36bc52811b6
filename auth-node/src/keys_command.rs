//! `auth-node keys`: what an operator does with signing keys. docs/operations/keys.md says when.
use std::sync::Arc;

use auth_core::crypto::seal::Sealer;
use auth_core::ports::{Clock, Random};
use auth_core::services::Keys;
use clap::Subcommand;

use crate::Failure;
use crate::app;
use crate::config::Config;
use crate::secrets::SecretFiles;
use crate::time::{SystemClock, SystemRandom};

#[derive(Subcommand)]
pub enum KeysCommand {
    /// All keys with their states and times
    List,
    /// Publish a new key now; it signs after tokens.key_lead_s
    Rotate,
    /// Stop signing with a key; its tokens stay valid until they expire
    Retire {
        /// The key id
        #[arg(allow_hyphen_values = true)]
        kid: String,
    },
    /// Refuse a key everywhere at once: its tokens die (nodes within 60 s, verifiers with their next JWKS)
    Distrust {
        /// The key id
        #[arg(allow_hyphen_values = true)]
        kid: String,
    },
}

pub async fn run(config: &Config, command: &KeysCommand) -> Result<(), Failure> {
    let keys = open(config).await?;
    let failed = |e: auth_core::services::KeysError| Failure::Failed(e.to_string());
    match command {
        KeysCommand::List => {
            println!("{:<44} {:<10} {:<25} {:<25} SIGNS UNTIL", "KID", "STATE", "PUBLISHED", "SIGNS FROM");
            for key in keys.list().await.map_err(failed)? {
                let r = &key.record;
                println!(
                    "{:<44} {:<10} {:<25} {:<25} {}",
                    r.kid,
                    key.state.as_str(),
                    r.published_at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
                    r.signs_from.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
                    r.signs_until.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
                );
            }
        }
        KeysCommand::Rotate => {
            let key = keys.rotate().await.map_err(failed)?;
            println!("{} is published and signs from {}", key.kid, key.signs_from.to_rfc3339());
        }
        KeysCommand::Retire { kid } => {
            keys.retire(kid).await.map_err(failed)?;
            println!("{kid} signs no more");
        }
        KeysCommand::Distrust { kid } => {
            let untold = keys.distrust(kid).await.map_err(failed)?;
            println!("{kid} is distrusted");
            if !untold.is_empty() {
                return Err(Failure::Failed(format!("not told yet: {}; run this again", untold.join(", "))));
            }
        }
    }
    Ok(())
}

async fn open(config: &Config) -> Result<Keys, Failure> {
    let files = SecretFiles::load(&config.secrets.dir)?;
    // Its own copy of the directory: the serving node's must not be written by two.
    let state_dir = std::env::temp_dir().join(format!("tessera-keys-{}", std::process::id()));
    let router = app::start_router(config, &state_dir).await;
    let _ = std::fs::remove_dir_all(&state_dir);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let random: Arc<dyn Random> = Arc::new(SystemRandom);
    Ok(app::open_keys(config, &router?, Sealer::new(files.seal), clock, random))
}
