//! The client, and its ways of dealing with a flaky server.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::{StatusCode, Uri};
use hyper_util::client::legacy::{self, connect::HttpConnector};
use hyper_util::rt::TokioTimer;
use ringfence::{Elapsed, Hedge, Jitter, Latency, Retry, RetryBudget, Spawner, timeout};

use crate::server::Story;

/// Whoever waits this long for an answer hangs up.
const PATIENCE: Duration = Duration::from_millis(200);
/// Comes back at once, and often: what one writes first.
const NAIVE: Retry = Retry::constant(Duration::from_millis(10))
    .jitter(Jitter::None)
    .attempts(8);
/// The same number of attempts, with a growing delay.
const POLITE: Retry = Retry::exponential(Duration::from_millis(50))
    .cap(Duration::from_secs(1))
    .attempts(8);

/// A copy is started after this at the latest.
const WORTH_WAITING: Duration = Duration::from_millis(100);

/// What a caller does when an answer is bad, or late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Nothing.
    Once,
    /// Tries again at once, up to eight times in all.
    Naive,
    /// Tries again after a growing, spread delay.
    Polite,
    /// The same, and all callers share a budget.
    Budget,
    /// Waits as long as it takes.
    Tail,
    /// Starts a second copy of what takes longer than nine in ten.
    Hedged,
}

impl Way {
    pub(crate) const ALL: [Self; 6] = [
        Self::Once,
        Self::Naive,
        Self::Polite,
        Self::Budget,
        Self::Tail,
        Self::Hedged,
    ];

    pub(crate) fn story(self) -> Story {
        match self {
            Self::Once | Self::Naive | Self::Polite | Self::Budget => Story::Overload,
            Self::Tail | Self::Hedged => Story::Tail,
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Once => "no retry",
            Self::Naive => "naive retry",
            Self::Polite => "backoff",
            Self::Budget => "backoff + budget",
            Self::Tail => "no hedge",
            Self::Hedged => "hedged",
        })
    }
}

#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("{0}")]
    Status(StatusCode),
    #[error(transparent)]
    Late(#[from] Elapsed),
    #[error(transparent)]
    Connection(#[from] legacy::Error),
    #[error(transparent)]
    Body(#[from] hyper::Error),
}

#[derive(Debug)]
pub(crate) struct Client {
    http: legacy::Client<HttpConnector, Empty<Bytes>>,
    uri: Uri,
    way: Way,
    seed: u64,
    budget: RetryBudget,
    latency: Latency,
}

/// The tasks that drive connections are children of our group as well.
#[derive(Clone, Debug)]
struct InGroup(Spawner<anyhow::Error>);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for InGroup {
    fn execute(&self, future: F) {
        self.0.spawn_background(future);
    }
}

impl Client {
    pub(crate) fn new(
        group: Spawner<anyhow::Error>,
        address: SocketAddr,
        way: Way,
        seed: u64,
    ) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let http = legacy::Client::builder(InGroup(group))
            .pool_max_idle_per_host(256)
            .pool_timer(TokioTimer::new())
            .build(connector);
        let uri = Uri::builder()
            .scheme("http")
            .authority(address.to_string())
            .path_and_query("/")
            .build();
        Self {
            http,
            uri: uri.unwrap_or_default(),
            way,
            seed,
            budget: RetryBudget::new(0.1).capacity(20).reserve(2),
            latency: Latency::new(),
        }
    }

    /// Calls the server in this client's way; says whether there was a good answer.
    pub(crate) async fn call(&self, number: u64) -> bool {
        match self.way {
            Way::Once => self.patient().await.is_ok(),
            Way::Naive => NAIVE.retry(|_| self.patient()).await.is_ok(),
            Way::Polite | Way::Budget => {
                let policy = POLITE.seed(self.seed);
                let run = policy.retry(|_| self.patient()).stream(number);
                match self.way {
                    Way::Budget => run.budget(&self.budget).await.is_ok(),
                    _ => run.await.is_ok(),
                }
            }
            Way::Tail => self.get().await.is_ok(),
            Way::Hedged => {
                let hedge = Hedge::percentile(0.9, &self.latency).cap(WORTH_WAITING);
                hedge.run(|_| self.get()).budget(&self.budget).await.is_ok()
            }
        }
    }

    async fn patient(&self) -> Result<Bytes, CallError> {
        timeout(PATIENCE, self.get()).await?
    }

    async fn get(&self) -> Result<Bytes, CallError> {
        let response = self.http.get(self.uri.clone()).await?;
        match response.status() {
            StatusCode::OK => Ok(response.into_body().collect().await?.to_bytes()),
            status => {
                // Read, so that the connection can be used again.
                response.into_body().collect().await?;
                Err(CallError::Status(status))
            }
        }
    }
}
