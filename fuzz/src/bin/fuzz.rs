//! The target that `TESSERA_FUZZ_TARGET` names, driven by libFuzzer: `make fuzz` builds and runs this.
#![no_main]

use std::sync::OnceLock;

use fuzz::targets::{TARGETS, Target};
use libfuzzer_sys::fuzz_target;

static TARGET: OnceLock<Target> = OnceLock::new();

fn chosen() -> Target {
    let name = std::env::var("TESSERA_FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    let Some((_, target)) = found else {
        let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
        eprintln!("set TESSERA_FUZZ_TARGET to one of: {}", names.join(" "));
        std::process::exit(2);
    };
    *target
}

fuzz_target!(|data: &[u8]| TARGET.get_or_init(chosen)(data));
