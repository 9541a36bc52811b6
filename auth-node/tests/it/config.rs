//! Bad configuration: the key and the reason, exit 2, before anything listens.
use std::process::Output;
use std::sync::Arc;

use crate::Suite;
use crate::world::World;

pub fn add(suite: &mut Suite) {
    suite.add("a_bad_configuration_ends_with_2_and_names_the_key", bad_keys);
    suite.add("foreign_permanent_keys_end_with_2_before_listening", foreign_keys);
    suite.add("migrating_again_changes_nothing", migrate_again);
}

fn run(world: &World, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let config = world.cluster.home().node_config("node-1");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_auth-node"));
    command.arg("--config").arg(config).args(arguments);
    // On ports of the system's choice, so that only the mistake can stop it.
    command.env("TESSERA_SERVER__LISTEN", "127.0.0.1:0").env("TESSERA_SERVER__OPS_LISTEN", "127.0.0.1:0");
    command.envs(variables.iter().copied()).output().expect("auth-node runs")
}

async fn bad_keys(world: Arc<World>) {
    for (variable, value, key) in [
        ("TESSERA_SERVER__LISTEN", "nowhere", "server.listen"),
        ("TESSERA_SERVER__NONSENSE", "1", "server.nonsense: unknown key"),
        ("TESSERA_TOKENS__KEY_LEAD_S", "5", "tokens.key_lead_s"),
        ("TESSERA_SESSIONS__CACHE_TRUST_S", "3600", "sessions.cache_trust_s"),
        ("TESSERA_SECRETS__DIR", "/nonexistent", "secrets.dir"),
        ("TESSERA_LOG__LEVEL", "a=b=c", "log.level"),
        ("TESSERA_TELEMETRY__OTLP_ENDPOINT", "https://collector:4318", "telemetry.otlp_endpoint"),
        ("TESSERA_REDIS__NODES", "[\"here\"]", "redis.nodes"),
    ] {
        let output = run(&world, &["serve"], &[(variable, value)]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{variable}: {text}");
        assert!(text.contains(key), "{variable}: {text}");
    }
}

async fn foreign_keys(world: Arc<World>) {
    let folder = tempfile::tempdir().expect("a folder");
    let secrets = world.cluster.home().secrets();
    for foreign in ["routing.key", "lookup.key"] {
        for entry in std::fs::read_dir(&secrets).expect("the secrets") {
            let entry = entry.expect("a file");
            std::fs::copy(entry.path(), folder.path().join(entry.file_name())).expect("a copy");
        }
        std::fs::write(folder.path().join(foreign), "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE\n")
            .expect("a key");
        let output =
            run(&world, &["serve"], &[("TESSERA_SECRETS__DIR", &folder.path().display().to_string())]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{foreign}: {text}");
        assert!(text.contains(foreign.trim_end_matches(".key")), "{foreign}: {text}");
        assert!(!text.contains("AQEBAQ"), "an error shows no key");
    }
}

async fn migrate_again(world: Arc<World>) {
    let output = run(&world, &["migrate"], &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("shard 3: up to date"));
}
