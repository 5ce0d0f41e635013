//! Metrics in Prometheus' text format. Handles are resolved once per lane and label set, never per
//! request; label values come from the configuration and the table of reasons, so that no client
//! can make more of them.

use super::Told;
use super::destinations::ENDPOINT as DESTINATIONS;
use crate::domain::reason::Reason;
use crate::domain::route::Route;
use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Upper bounds in seconds: OpenTelemetry's list for HTTP, and two below for a hop that is fast.
const SECONDS: [f64; 16] =
    [0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

const META: Metadata<'static> = Metadata::new("flowgate", Level::INFO, None);

/// Where all lanes count.
#[derive(Clone)]
pub struct Registry(Arc<PrometheusRecorder>);

impl Registry {
    pub fn new() -> Option<Self> {
        let duration = Matcher::Full("http_server_request_duration_seconds".into());
        let builder = PrometheusBuilder::new().set_buckets_for_metric(duration, &SECONDS).ok()?;
        let recorder = builder.build_recorder();
        recorder.describe_histogram(
            "http_server_request_duration_seconds".into(),
            None,
            "from the request's head to the answer's last byte".into(),
        );
        recorder.describe_counter(
            "flowgate_decisions_total".into(),
            None,
            "calls by route, decision and inner reason".into(),
        );
        recorder.describe_counter(
            "flowgate_token_requests_total".into(),
            None,
            "requests to the token server by endpoint, result and inner reason".into(),
        );
        recorder.describe_counter(
            "flowgate_lookups_total".into(),
            None,
            "requests to the Destination service's interface by result and inner reason".into(),
        );
        recorder.describe_counter(
            "flowgate_access_log_dropped_total".into(),
            None,
            "log lines lost because the writer was too slow".into(),
        );
        recorder.describe_gauge(
            "flowgate_config_last_reload_successful".into(),
            None,
            "1 if the configuration on disk is the one in use".into(),
        );
        recorder.describe_gauge(
            "flowgate_config_last_reload_timestamp_seconds".into(),
            None,
            "when the configuration was last taken".into(),
        );
        recorder.describe_gauge(
            "flowgate_nearest_end_timestamp_seconds".into(),
            None,
            "when the next certificate, CA or revocation list of a kind ends; `flowgate check --at` names it".into(),
        );
        recorder.describe_gauge(
            "flowgate_ending".into(),
            None,
            "certificates, CAs and revocation lists that will have ended within so many days".into(),
        );
        recorder.describe_gauge(
            "flowgate_backend_server_up".into(),
            None,
            "1 if a server gets calls, 0 while it is left out".into(),
        );
        recorder.describe_gauge("flowgate_backend_calls".into(), None, "calls under way at a server".into());
        Some(Self(Arc::new(recorder)))
    }

    pub fn render(&self) -> String {
        self.0.handle().render()
    }

    /// Empties the histograms' sample buffers; without it they grow.
    pub fn upkeep(&self) {
        self.0.handle().run_upkeep();
    }

    pub fn gauge(&self, name: &'static str) -> Gauge {
        self.0.register_gauge(&Key::from_static_name(name), &META)
    }

    /// A gauge about one kind of thing.
    pub fn of_kind(&self, name: &'static str, kind: &'static str, more: &[(&'static str, &'static str)]) -> Gauge {
        let more = more.iter().map(|(name, value)| Label::new(*name, *value));
        let labels = std::iter::once(Label::new("kind", kind)).chain(more).collect::<Vec<_>>();
        self.0.register_gauge(&Key::from_parts(name, labels), &META)
    }

    /// A gauge about one outbound credential, of which an operator has a few hundred at most.
    pub fn of_credential(&self, name: &'static str, credential: &str) -> Gauge {
        let labels = vec![Label::new("credential", credential.to_owned())];
        self.0.register_gauge(&Key::from_parts(name, labels), &META)
    }

    /// A gauge about one server of a backend.
    pub fn of_server(&self, name: &'static str, backend: &str, server: &str) -> Gauge {
        let labels = vec![Label::new("backend", backend.to_owned()), Label::new("server", server.to_owned())];
        self.0.register_gauge(&Key::from_parts(name, labels), &META)
    }

    pub fn counter(&self, name: &'static str, labels: Vec<Label>) -> Counter {
        self.0.register_counter(&Key::from_parts(name, labels), &META)
    }

    fn histogram(&self, name: &'static str, labels: Vec<Label>) -> Histogram {
        self.0.register_histogram(&Key::from_parts(name, labels), &META)
    }
}

/// Which handles a request needs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Labels {
    route: Option<String>,
    endpoint: Option<&'static str>,
    status: u16,
    reason: Option<Reason>,
}

struct Handles {
    decision: Counter,
    duration: Histogram,
}

/// By the address of a route and a status.
type ByRoute = HashMap<(usize, u16), (Arc<Route>, Handles)>;

/// A lane's handles. Permitted calls are found by their route's address; the route is held beside
/// the handles, so that no later one can have the same address.
pub struct Metrics {
    registry: Registry,
    handles: RefCell<HashMap<Labels, Handles>>,
    by_route: RefCell<ByRoute>,
}

impl Metrics {
    pub fn new(registry: Registry) -> Self {
        Self { registry, handles: RefCell::default(), by_route: RefCell::default() }
    }

    pub fn count(&self, told: &Told, status: u16, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64();
        // the common case: a permitted call, found by the route's address without copying its name
        if let (Some(route), None) = (&told.seen.route, &told.refusal) {
            let mut handles = self.by_route.borrow_mut();
            if handles.len() > 1_024 {
                // routes of configurations long gone
                handles.clear();
            }
            let key = (Arc::as_ptr(route).addr(), status);
            let fresh = || (route.clone(), self.resolve(&labels(told, status)));
            let (_, handles) = handles.entry(key).or_insert_with(fresh);
            handles.decision.increment(1);
            handles.duration.record(seconds);
            return;
        }
        let labels = labels(told, status);
        let mut handles = self.handles.borrow_mut();
        let handles = match handles.get(&labels) {
            Some(known) => known,
            None => {
                let fresh = self.resolve(&labels);
                handles.entry(labels).or_insert(fresh)
            }
        };
        handles.decision.increment(1);
        handles.duration.record(seconds);
    }

    fn resolve(&self, labels: &Labels) -> Handles {
        let reason = labels.reason.map_or("none", |reason| reason.row().name);
        let result = if labels.reason.is_some() { "refuse" } else { "permit" };
        let status = labels.status.to_string();
        let (decision, route) = match labels.endpoint {
            Some(endpoint) => {
                let names =
                    vec![Label::new("endpoint", endpoint), Label::new("result", result), Label::new("reason", reason)];
                let metric =
                    if endpoint == DESTINATIONS { "flowgate_lookups_total" } else { "flowgate_token_requests_total" };
                (self.registry.counter(metric, names), endpoint.to_owned())
            }
            None => {
                let route = labels.route.clone().unwrap_or_else(|| "none".into());
                let names = vec![
                    Label::new("route", route.clone()),
                    Label::new("decision", result),
                    Label::new("reason", reason),
                ];
                (self.registry.counter("flowgate_decisions_total", names), route)
            }
        };
        let names = vec![Label::new("http_route", route), Label::new("http_response_status_code", status)];
        Handles { decision, duration: self.registry.histogram("http_server_request_duration_seconds", names) }
    }
}

fn labels(told: &Told, status: u16) -> Labels {
    Labels {
        route: told.seen.route.as_ref().map(|route| route.name.clone()),
        endpoint: told.endpoint,
        status,
        reason: told.refusal.as_ref().map(|refusal| refusal.reason),
    }
}
