//! Requests to the control process, by class and by status of the answer.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts};

use super::sheet::{Sheet, valid};

/// Upper bounds in seconds of the buckets: from an answer of the control process to the time limit of an apply.
const BUCKETS: [f64; 8] = [0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0];

/// The classes of requests, as labels.
const CLASSES: [&str; 5] = ["metrics", "health", "read", "change", "unknown"];

/// The classes of status codes that answers have, as labels.
const STATUSES: [&str; 3] = ["2xx", "4xx", "5xx"];

/// The counts since the start of the process.
#[derive(Clone, Debug)]
pub(crate) struct RequestMetrics {
    requests: IntCounterVec,
    durations: HistogramVec,
}

impl Default for RequestMetrics {
    fn default() -> Self {
        let requests = Opts::new(
            "control_requests_total",
            "Requests to the control process, by class and status of the answer. `read` are requests of operators that \
             change nothing, and those of samples and traces.",
        );
        let durations = HistogramOpts::new(
            "control_request_duration_seconds",
            "Time from the arrival of a request to the begin of its answer, by class.",
        );
        let metrics = RequestMetrics {
            requests: valid(IntCounterVec::new(requests, &["class", "status"])),
            durations: valid(HistogramVec::new(durations.buckets(BUCKETS.to_vec()), &["class"])),
        };
        for class in CLASSES {
            metrics.durations.with_label_values(&[class]);
            STATUSES.iter().for_each(|status| _ = metrics.requests.with_label_values(&[class, status]));
        }
        metrics
    }
}

impl RequestMetrics {
    /// Counts a request that has its answer.
    pub(crate) fn note(&self, class: &'static str, status: StatusCode, took: Duration) {
        let status = match status.as_u16() {
            ..400 => "2xx",
            400..500 => "4xx",
            500.. => "5xx",
        };
        self.requests.with_label_values(&[class, status]).inc();
        self.durations.with_label_values(&[class]).observe(took.as_secs_f64());
    }

    pub(super) fn register(&self, sheet: &Sheet) {
        sheet.register(&self.requests);
        sheet.register(&self.durations);
    }
}

/// The class of a request. An unknown path has a class of its own, because any client can request any path.
pub(crate) fn class(method: &Method, path: &str) -> &'static str {
    /// Requests with a body that change nothing.
    const READING: [&str; 4] = ["/api/v1/kernel", "/api/v1/sample", "/api/v1/sources/", "/api/v1/trace"];
    match path {
        "/metrics" => "metrics",
        "/healthz" | "/readyz" => "health",
        _ if !path.starts_with("/api/") => "unknown",
        _ if method == Method::GET || READING.iter().any(|reading| path.starts_with(reading)) => "read",
        _ => "change",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_has_a_class_that_has_series_from_the_start() {
        let cases = [
            (Method::GET, "/metrics", "metrics"),
            (Method::GET, "/readyz", "health"),
            (Method::GET, "/api/v1/lists", "read"),
            (Method::POST, "/api/v1/lists", "change"),
            (Method::POST, "/api/v1/sample/7/end", "read"),
            (Method::DELETE, "/api/v1/trace/7", "read"),
            (Method::POST, "/api/v1/sources/192.0.2.1/watch", "read"),
            (Method::DELETE, "/api/v1/lists/secured/192.0.2.1", "change"),
            (Method::POST, "/wp-login.php", "unknown"),
        ];
        for (method, path, expected) in cases {
            assert_eq!(class(&method, path), expected, "{method} {path}");
            assert!(CLASSES.contains(&expected));
        }
    }
}
