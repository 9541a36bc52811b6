//! schemathesis reads our OpenAPI and sends what it can think of, good and bad, as four kinds of caller: no answer is a
//! 5xx, and none was not announced. More cases than the suite has time for: `TESSERA_FUZZ_EXAMPLES=1000`.
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use crate::Suite;
use crate::world::World;

const CALLERS: [(&str, u32); 4] = [("user", 20), ("nobody", 5), ("garbage", 5), ("ended", 5)];

pub fn add(suite: &mut Suite) {
    let module = tools().join("schemathesis");
    let missing = (!module.is_dir()).then(|| "schemathesis is not there: run `make tools`".to_owned());
    suite.add_unless("schemathesis_meets_no_5xx_and_nothing_unannounced", missing, all_callers);
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn tools() -> PathBuf {
    root().join(".tessera/tools/schemathesis")
}

async fn all_callers(world: Arc<World>) {
    let asked = std::env::var("TESSERA_FUZZ_EXAMPLES").ok().and_then(|text| text.parse().ok());
    for (caller, examples) in CALLERS {
        let mut command = schemathesis(&world.any_node(), caller, asked.unwrap_or(examples));
        let folder = tempfile::tempdir().expect("a folder for its notes");
        command.current_dir(folder.path());
        let output = tokio::task::spawn_blocking(move || command.output().expect("schemathesis runs"));
        let output = output.await.expect("a result");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let counted = text.lines().find(|line| line.contains(" generated, ")).unwrap_or_default();
        eprintln!("schemathesis as {caller}: {}", counted.trim());
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "as {caller}:\n{text}\n{errors}");
        assert!(text.contains("Tested: ") && !counted.is_empty(), "as {caller} it tested nothing:\n{text}");
    }
}

fn schemathesis(node: &str, caller: &str, examples: u32) -> Command {
    let here = root().join("interop/schemathesis");
    let mut command = Command::new("python3");
    command.args(["-m", "schemathesis.cli", "--config-file"]).arg(here.join("schemathesis.toml"));
    command.arg("run").arg(format!("{node}/openapi.json"));
    command.args(["--no-color", "--continue-on-failure", "--phases", "examples,coverage,fuzzing"]);
    // The same cases each time: a failure is a finding, not a mood.
    command.args(["--seed", "1", "--generation-database", "none", "--max-examples", &examples.to_string()]);
    command.env("PYTHONPATH", std::env::join_paths([tools(), here]).expect("paths without colons"));
    command.env("PYTHONDONTWRITEBYTECODE", "1").env("SCHEMATHESIS_HOOKS", "hooks");
    command.env("TESSERA_URL", node).env("CALLER", caller).env("NO_PROXY", "127.0.0.1");
    command
}
