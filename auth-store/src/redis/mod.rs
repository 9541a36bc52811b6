//! All Redis commands. Redis is a copy and never the truth: nothing here can fail a request.
mod breaker;
mod cache;
mod entry;
mod limits;
mod scripts;

pub use cache::{RedisConfig, RedisSessions};
pub use limits::RedisLimits;
