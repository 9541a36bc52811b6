//! The span of one request: the root of its trace, and the parent of everything that the services and the store do.
use axum::extract::Request;
use axum::http::HeaderMap;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{SpanContext, Status, TraceContextExt, TraceState};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing::field::Empty;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::ROOT;

/// What the edge knows of a request before anybody has looked at it.
pub struct Seen<'a> {
    /// `X-Request-Id`, the caller's if it was harmless.
    pub id: &'a str,
    /// Of the standard, or `OTHER`.
    pub method: &'static str,
    /// The template; none for an address that does not exist.
    pub route: Option<&'a str>,
}

/// Opens the span of a request that is traced. `W3C traceparent` of a trusted proxy makes it a part of the proxy's
/// trace; of anybody else it is remembered as a link, since a stranger must not write into traces of ours.
pub fn open(seen: &Seen<'_>, request: &Request, from_proxy: bool) -> Span {
    let route = seen.route.unwrap_or("unmatched");
    let span = tracing::info_span!(
        target: ROOT, "request", otel.kind = "server", request.id = seen.id, http.route = route,
        trace_id = Empty, span_id = Empty
    );
    match caller(request.headers()) {
        // It was made a moment ago, so it has not begun, and if it is disabled there is nothing to do.
        Some(parent) if from_proxy => {
            let _ = span.set_parent(Context::new().with_remote_span_context(parent));
        }
        Some(stranger) => span.add_link(stranger),
        None => {}
    }
    let context = span.context();
    let begun = context.span();
    begun.update_name(name(seen));
    let method = if seen.method == "OTHER" { "_OTHER" } else { seen.method };
    begun.set_attribute(KeyValue::new("http.request.method", method));
    let ids = begun.span_context();
    // For the log lines of this request.
    span.record("trace_id", tracing::field::display(ids.trace_id()));
    span.record("span_id", tracing::field::display(ids.span_id()));
    span
}

/// Says how it ended. A caller that hangs up before the answer leaves a span without a status.
pub fn end(span: &Span, status: u16) {
    span.set_attribute("http.response.status_code", i64::from(status));
    if status >= 500 {
        span.set_attribute("error.type", status.to_string());
        span.set_status(Status::error(""));
    }
}

fn name(seen: &Seen<'_>) -> String {
    let method = if seen.method == "OTHER" { "HTTP" } else { seen.method };
    seen.route.map_or_else(|| method.to_owned(), |route| format!("{method} {route}"))
}

/// Trace and span of the caller. `tracestate` is left out: it is free text, and would go to the collector as it came.
fn caller(headers: &HeaderMap) -> Option<SpanContext> {
    let mut values = headers.get_all("traceparent").iter();
    let (Some(_), None) = (values.next(), values.next()) else { return None };
    let context =
        TraceContextPropagator::new().extract_with_context(&Context::new(), &HeaderExtractor(headers));
    let span = context.span();
    let ids = span.span_context();
    let bare =
        || SpanContext::new(ids.trace_id(), ids.span_id(), ids.trace_flags(), true, TraceState::default());
    ids.is_valid().then(bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn callers(lines: &[(&'static str, &str)]) -> Option<SpanContext> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        caller(&headers)
    }

    #[test]
    fn one_good_traceparent_is_read_and_free_text_is_not() {
        let found = callers(&[("traceparent", GIVEN), ("tracestate", "a=secret")]).unwrap();
        assert_eq!(found.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(found.span_id().to_string(), "b7ad6b7169203331");
        assert!(found.is_remote() && found.trace_state().header().is_empty());
        assert!(callers(&[]).is_none());
        assert!(callers(&[("traceparent", GIVEN), ("traceparent", GIVEN)]).is_none());
        for bad in ["", "00-0-0-01", "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "00-secret"] {
            assert!(callers(&[("traceparent", bad)]).is_none(), "{bad}");
        }
        let zero = GIVEN.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32));
        assert!(callers(&[("traceparent", &zero)]).is_none());
    }

    #[test]
    fn names_are_templates() {
        let seen = |method, route| name(&Seen { id: "", method, route });
        assert_eq!(seen("GET", Some("/auth/v1/sessions/{id}")), "GET /auth/v1/sessions/{id}");
        assert_eq!(seen("GET", None), "GET");
        assert_eq!(seen("OTHER", None), "HTTP");
    }
}
