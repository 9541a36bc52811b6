//! `tessera_http_request_seconds`, with each series looked up once.
//!
//! A label set built anew for every request is three allocations, a hash over all of them and a look-up; here it is one
//! look-up by the route.
use std::collections::HashMap;
use std::sync::{LazyLock, PoisonError, RwLock};
use std::time::Duration;

use metrics::Histogram;

/// By route; few methods and statuses each.
type Series = HashMap<String, Vec<(&'static str, u16, Histogram)>>;

static SERIES: LazyLock<RwLock<Series>> = LazyLock::new(RwLock::default);

/// Records one answer. `route` is a template and `method` one of few names: our code bounds the number of series.
pub fn record(route: &str, method: &'static str, status: u16, elapsed: Duration) {
    let known = find(&SERIES.read().unwrap_or_else(PoisonError::into_inner), route, method, status);
    let series = known.unwrap_or_else(|| {
        let mut all = SERIES.write().unwrap_or_else(PoisonError::into_inner);
        let new = metrics::histogram!(
            "tessera_http_request_seconds",
            "route" => route.to_owned(), "method" => method, "status" => status.to_string()
        );
        // Somebody may have been faster; both handles are of one series.
        all.entry(route.to_owned()).or_default().push((method, status, new.clone()));
        new
    });
    series.record(elapsed.as_secs_f64());
}

fn find(all: &Series, route: &str, method: &str, status: u16) -> Option<Histogram> {
    let of_route = all.get(route)?;
    of_route.iter().find(|(m, s, _)| *m == method && *s == status).map(|(.., series)| series.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_kept() {
        for _ in 0..3 {
            record("/planted", "GET", 200, Duration::from_millis(1));
            record("/planted", "GET", 404, Duration::from_millis(1));
        }
        let all = SERIES.read().unwrap();
        assert_eq!(all["/planted"].len(), 2);
        assert!(find(&all, "/planted", "GET", 404).is_some() && find(&all, "/planted", "PUT", 200).is_none());
    }
}
