//! What a trace shows of state: one span for each attempt at a shard, one for each Redis command.
//!
//! Names, numbers and kinds of failure only. No statement, no key and no value ever stands in one.
use shard_router::{Role, ShardId};
use tracing::Span;
use tracing::field::Empty;

use crate::errors::{Fault, TxError};
use crate::tx::Call;

/// One attempt of a repository method, from the moment when it has its connection.
pub(crate) fn attempt(call: Call, shard: ShardId, role: Role) -> Span {
    tracing::trace_span!(
        "store",
        otel.name = call.op.span,
        otel.kind = "client",
        db.system.name = "postgresql",
        db.operation.name = call.op.name,
        tessera.bucket = i64::from(call.bucket.get()),
        tessera.shard = i64::from(shard.get()),
        tessera.role = role.label(),
        error.type = Empty,
        otel.status_code = Empty,
    )
}

/// Says why an attempt did not do its work, if it did not.
pub(crate) fn end<T>(span: &Span, outcome: &Result<T, TxError>) {
    let Err(error) = outcome else { return };
    if span.is_disabled() {
        return;
    }
    let kind = match error.fault().0 {
        Fault::Elsewhere(_) => "elsewhere",
        Fault::Fenced => "fenced",
        Fault::Conflict => "conflict",
        Fault::TimedOut => "timed_out",
        Fault::Lost => "lost",
        Fault::Refused => "refused",
        Fault::Broken => "broken",
    };
    span.record("error.type", kind);
    span.record("otel.status_code", "ERROR");
}

/// One Redis command.
pub(crate) fn command(op: &'static str) -> Span {
    tracing::trace_span!(
        "redis",
        otel.name = %format_args!("redis.{op}"),
        otel.kind = "client",
        db.system.name = "redis",
        db.operation.name = op,
        error.type = Empty,
        otel.status_code = Empty,
    )
}

/// Says that there is no answer, and why.
pub(crate) fn unanswered(span: &Span, kind: &'static str) {
    span.record("error.type", kind);
    span.record("otel.status_code", "ERROR");
}
