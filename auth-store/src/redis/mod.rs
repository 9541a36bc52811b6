//! All Redis commands. Redis is a copy and never the truth: nothing here can fail a request.
mod cache;
mod cluster;
mod entry;
mod limits;
mod node;
mod scripts;

pub use cache::{RedisConfig, RedisSessions};
pub use limits::RedisLimits;
