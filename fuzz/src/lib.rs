//! What strangers may send us, made on purpose: the token corpus, and targets for coverage-guided fuzzing.
#![deny(missing_docs)]

pub mod targets;
pub mod tokens;
pub mod world;
