//! The live `/metrics` against `docs/metrics.md`, both ways, and against Prometheus's own linter.
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use reqwest::Method;
use serde_json::json;

use crate::Suite;
use crate::world::{World, eventually};

/// What appears only when something goes wrong, when rows are old enough to be swept, or with traces.
const RARE: [&str; 12] = [
    "tessera_directory_quarantined",
    "tessera_hash_rejected_total",
    "tessera_redirects_total",
    "tessera_session_loads_shed_total",
    "tessera_shard_breaker_refused_total",
    "tessera_shard_shed_total",
    "tessera_signing_key_quarantined",
    "tessera_store_errors_total",
    "tessera_store_retries_total",
    "tessera_store_swept_total",
    "tessera_trace_spans_total",
    "tessera_limits_total",
];

/// Of traffic, 50 ms apart: what is written every few seconds has appeared by then.
const ROUNDS: u32 = 100;

pub fn add(suite: &mut Suite) {
    suite.add("every_metric_is_what_its_page_says", documented);
    let missing = promtool().is_none().then(|| "promtool is not there: install Prometheus".to_owned());
    suite.add_unless("promtool_has_nothing_to_say", missing, linted);
}

/// As CI fetches it, or as the system has it.
fn promtool() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).collect::<Vec<_>>();
    let all = [root.join(".tessera/tools")].into_iter().chain(folders);
    all.map(|folder| folder.join("promtool")).find(|program| program.is_file())
}

/// Type and labels of each metric.
type Families = BTreeMap<String, (String, BTreeSet<String>)>;

async fn documented(world: Arc<World>) {
    let listed = listed();
    let expected = |name: &String| !RARE.contains(&name.as_str());
    for rare in RARE {
        assert!(listed.contains_key(rare), "{rare} is in no table any more");
    }
    let absent = |text: &str| {
        let found = families(text);
        listed.keys().filter(|name| expected(name) && !found.contains_key(*name)).cloned().collect::<Vec<_>>()
    };
    let scraped = after_traffic(&world, |text| absent(text).is_empty()).await;
    assert!(absent(&scraped).is_empty(), "in docs/metrics.md, not after traffic: {:?}", absent(&scraped));
    let found = families(&scraped);
    for (name, family) in &found {
        assert_eq!(Some(family), listed.get(name), "{name}: type and labels, live and in docs/metrics.md");
        assert!(scraped.contains(&format!("# HELP {name} ")), "{name} has no help text");
    }
}

async fn linted(world: Arc<World>) {
    let scraped = after_traffic(&world, |text| text.contains("tessera_store_seconds_bucket")).await;
    let mut child = Command::new(promtool().expect("promtool"))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool runs");
    child.stdin.take().expect("a pipe").write_all(scraped.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}

/// What the first node shows once `enough` is there, or after [`ROUNDS`]; some of it is written every few seconds only, or by a reader that
/// may have gone to the primary.
async fn after_traffic(world: &World, enough: impl Fn(&str) -> bool + Sync) -> String {
    let url = format!("{}/metrics", world.cluster.ops_url(1).expect("an address"));
    let scraped = Mutex::new(String::new());
    let rounds = AtomicU32::new(0);
    eventually("there is traffic", || async {
        traffic(world).await;
        let text = world.http.get(&url).send().await.expect("metrics").text().await.expect("text");
        let enough = enough(&text);
        *scraped.lock().expect("nobody panics with it") = text;
        enough || rounds.fetch_add(1, Ordering::Relaxed) > ROUNDS
    })
    .await;
    scraped.into_inner().expect("nobody panics with it")
}

/// Whether each call does well is not asked here: what they leave in `/metrics` is.
async fn traffic(world: &World) {
    let node = world.node(1);
    let account = json!({"email": world.new_email(), "password": "correct horse battery"});
    let post = |path, body| world.call_at(&node, Method::POST, path, None, Some(body));
    post("/auth/v1/register", account.clone()).await;
    let login = post("/auth/v1/login", account).await;
    let Some(token) = login.body["access_token"].as_str() else { return };
    let list = "/auth/v1/sessions?consistency=eventual";
    world.call_at(&node, Method::GET, list, Some(token), None).await;
    post("/auth/v1/refresh", json!({"refresh_token": login.body["refresh_token"]})).await;
    world.call_at(&node, Method::POST, "/auth/v1/logout", Some(token), None).await;
}

/// The tables of the page.
fn listed() -> Families {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let page = std::fs::read_to_string(page).expect("the page");
    let rows = page.lines().filter(|line| line.starts_with("| `tessera_"));
    rows.map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, labels, _] = cells[..] else { panic!("not four cells: {line}") };
        let labels = labels.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        (name.trim_matches('`').to_owned(), (kind.to_owned(), labels))
    })
    .collect()
}

/// What is exposed: the types that are announced, and the labels of every sample.
fn families(text: &str) -> Families {
    let mut found = Families::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            found.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new()));
        } else if !line.starts_with('#') && !line.is_empty() {
            let (series, _) = line.rsplit_once(' ').expect("a value");
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let plain = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
            let family = plain.filter(|plain| found.contains_key(*plain)).unwrap_or(name);
            let (_, known) = found.get_mut(family).unwrap_or_else(|| panic!("{name} has no type"));
            known.extend(names(labels).filter(|label| label != "le"));
        }
    }
    found
}

/// `a="1",b="2"}`: no value of ours has a quote in it.
fn names(labels: &str) -> impl Iterator<Item = String> {
    labels
        .split('"')
        .step_by(2)
        .filter_map(|piece| Some(piece.trim_start_matches(',').strip_suffix('=')?.to_owned()))
}
