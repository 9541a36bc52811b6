//! Libraries that are not ours verify our tokens against the live JWKS: PyJWT and jose, exactly as the README shows.
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use crate::Suite;
use crate::world::World;

pub fn add(suite: &mut Suite) {
    let root = root();
    let python = root.join(".tessera/tools/python");
    let missing = (!python.join("jwt").is_dir()).then(|| "PyJWT is not there: run `make tools`".to_owned());
    suite.add_unless(
        "pyjwt_verifies_our_tokens_and_refuses_tampered_ones",
        missing,
        move |world| async move {
            check(&world, |token, issuer| {
                let mut command = Command::new("python3");
                command.arg(root.join("interop/python/verify.py")).arg(token).env("PYTHONPATH", &python);
                command.env("TESSERA_ISSUER", issuer);
                command
            })
            .await;
        },
    );
    let script = self::root().join("interop/typescript/dist/verify.js");
    let missing = (!script.is_file()).then(|| "jose is not there: run `make tools`".to_owned());
    suite.add_unless(
        "jose_verifies_our_tokens_and_refuses_tampered_ones",
        missing,
        move |world| async move {
            check(&world, |token, issuer| {
                let mut command = Command::new("node");
                command.arg(&script).arg(token).env("TESSERA_ISSUER", issuer);
                command
            })
            .await;
        },
    );
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

async fn check(world: &Arc<World>, command: impl Fn(&str, &str) -> Command) {
    let session = world.new_session().await;
    let issuer = world.node(1);
    let run = |token: String| {
        let mut command = command(&token, &issuer);
        tokio::task::spawn_blocking(move || command.output().expect("the library's process runs"))
    };
    let good = run(session.access.clone()).await.expect("a result");
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
    let shown: serde_json::Value = serde_json::from_slice(&good.stdout).expect("claims");
    assert_eq!(shown["sid"], session.id.as_str());
    // The first character of the signature: all of its bits count.
    let (head, signature) = session.access.rsplit_once('.').expect("three parts");
    let flipped = if signature.starts_with('A') { "B" } else { "A" };
    let tampered = format!("{head}.{flipped}{}", &signature[1..]);
    assert_eq!(run(tampered).await.expect("a result").status.code(), Some(1));
}
