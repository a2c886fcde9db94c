//! What is counted about calls, once for both ends.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Response;
use linnet_runtime::Metrics;
use linnet_runtime::metrics::{Counter, Family, Gauge, Histogram, SecondsBy};
use tonic::Code;
use tonic::Status;
use tonic::body::Body;

use crate::service::Service;

type ServiceLabel = [(&'static str, &'static str); 1];
type OutcomeLabels = [(&'static str, &'static str); 2];

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Ok,
    Refused,
    Deadline,
    Unavailable,
    Fault,
}

const OUTCOMES: [Outcome; 5] = [Outcome::Ok, Outcome::Refused, Outcome::Deadline, Outcome::Unavailable, Outcome::Fault];

impl Outcome {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::Deadline => "deadline",
            Self::Unavailable => "unavailable",
            Self::Fault => "fault",
        }
    }

    fn of(result: &Result<Response<Body>, Status>) -> Self {
        // A unary refusal comes as a response whose headers hold the status; success has it in the trailers.
        match result {
            Ok(response) => {
                Status::from_header_map(response.headers()).map_or(Self::Ok, |status| Self::of_status(&status))
            }
            Err(status) => Self::of_status(status),
        }
    }

    fn of_status(status: &Status) -> Self {
        match status.code() {
            Code::Ok => Self::Ok,
            _ if status.metadata().contains_key("linnet-code") => Self::Refused,
            Code::DeadlineExceeded => Self::Deadline,
            Code::Unavailable | Code::Cancelled => Self::Unavailable,
            _ => Self::Fault,
        }
    }
}

/// The caller's counts, ready per service so that a call looks nothing up by name.
#[derive(Debug)]
pub(crate) struct CallMetrics {
    by_service: BTreeMap<Service, Calls>,
}

#[derive(Clone, Debug)]
pub(crate) struct Calls {
    outcomes: [Counter; OUTCOMES.len()],
    seconds: Histogram,
}

impl CallMetrics {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let (calls, seconds): (Family<OutcomeLabels, Counter>, SecondsBy<ServiceLabel>) =
            metrics.scope("rpc", |scope| {
                let calls = scope.counters("calls", "Calls made, by target service and outcome");
                (calls, scope.seconds_by("call", "Time until the reply's head, by target service"))
            });
        let of = |service: Service| Calls {
            outcomes: OUTCOMES.map(|outcome| {
                calls.get_or_create(&[("service", service.name()), ("outcome", outcome.name())]).clone()
            }),
            seconds: seconds.get_or_create(&[("service", service.name())]).clone(),
        };
        Self { by_service: Service::ALL.into_iter().map(|service| (service, of(service))).collect() }
    }

    pub(crate) fn of(&self, service: Service) -> Calls {
        self.by_service.get(&service).expect("counts for every service").clone()
    }
}

impl Calls {
    pub(crate) fn done(&self, result: &Result<Response<Body>, Status>, took: Duration) {
        let outcome = Outcome::of(result);
        let at = OUTCOMES.iter().position(|known| *known == outcome).expect("every outcome is listed");
        self.outcomes[at].inc();
        self.seconds.observe(took.as_secs_f64());
    }
}

/// The target's counts.
#[derive(Clone, Debug)]
pub(crate) struct ServeMetrics {
    pub(crate) active: Family<ServiceLabel, Gauge>,
    pub(crate) shed: Family<ServiceLabel, Counter>,
}

impl ServeMetrics {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        metrics.scope("rpc", |scope| Self {
            active: scope.gauges("active", "Calls being worked on, by service"),
            shed: scope.counters("shed", "Calls refused because the service was at its limit"),
        })
    }
}
