//! `/openapi.json`, `/docs` and `/problems/{name}`: the API, described by the node itself. Everything is in the binary;
//! the pages load nothing from anywhere else, and their content policy says so.
use axum::extract::Path;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};

use crate::openapi;
use crate::problem::Problem;
use crate::problem_page;

const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub async fn openapi() -> Response {
    file("application/json", openapi::DOCUMENT.as_str())
}

pub async fn page() -> Response {
    html(include_str!("../../assets/docs.html"))
}

pub async fn asset(Path(name): Path<String>) -> Result<Response, Problem> {
    match name.as_str() {
        "docs.css" => Ok(file("text/css; charset=utf-8", include_str!("../../assets/docs.css"))),
        "docs.js" => Ok(file("text/javascript; charset=utf-8", include_str!("../../assets/docs.js"))),
        _ => Err(Problem::NotFound),
    }
}

pub async fn problem(Path(name): Path<String>) -> Result<Response, Problem> {
    problem_page::render(&name).map(html).ok_or(Problem::NotFound)
}

fn html(text: impl IntoResponse) -> Response {
    ([(CONTENT_SECURITY_POLICY, PAGE_POLICY)], file("text/html; charset=utf-8", text)).into_response()
}

/// It changes with the binary: kept for minutes, not for days.
fn file(kind: &'static str, text: impl IntoResponse) -> Response {
    ([(CONTENT_TYPE, kind), (CACHE_CONTROL, "public, max-age=300")], text).into_response()
}
