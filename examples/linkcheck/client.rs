//! The HTTP client: pooled connections, a limit on the time of each request, retries.

use std::error::Error;
use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderName, LOCATION, RETRY_AFTER, USER_AGENT};
use hyper::{Request, Response, StatusCode};
use hyper_util::client::legacy::{self, connect::HttpConnector};
use hyper_util::rt::TokioTimer;
use ringfence::{Retry, RetryReason, Spawner, Verdict};
use url::Url;

use crate::html::resolve;

/// Larger than any page somebody wrote; a stream without end is not read to its end.
const MAX_PAGE: usize = 64 << 20;
const ATTEMPTS: u32 = 4;
/// A server may ask for more patience than a run has.
const MAX_PAUSE: Duration = Duration::from_secs(10);
const RETRY: Retry = Retry::exponential(Duration::from_millis(100)).attempts(ATTEMPTS);

#[derive(Debug)]
pub(crate) struct Client {
    http: legacy::Client<HttpConnector, Empty<Bytes>>,
    timeout: Duration,
    requests: AtomicUsize,
    retries: AtomicUsize,
}

/// A good answer.
#[derive(Debug)]
pub(crate) enum Fetched {
    Html(Bytes),
    Other,
    Moved(Url),
}

/// Why there is no good answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("{status}")]
    Status {
        status: StatusCode,
        retry_after: Option<Duration>,
    },
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("cannot be asked for: {0}")]
    Request(#[from] hyper::http::Error),
    #[error("{}", innermost(.0))]
    Connection(#[from] legacy::Error),
    #[error("cut off: {}", innermost(.0))]
    Body(#[from] hyper::Error),
    #[error("larger than {} MiB", MAX_PAGE >> 20)]
    TooLarge,
    #[error("a redirect to nowhere")]
    Redirect,
}

/// hyper drives each connection in a task; these tasks are children of our group as well. In the
/// background, since a pooled connection is no reason to keep a group open.
#[derive(Clone, Debug)]
struct InGroup(Spawner<anyhow::Error>);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for InGroup {
    fn execute(&self, future: F) {
        self.0.spawn_background(future);
    }
}

impl Client {
    /// A client whose connections belong to a group.
    pub(crate) fn new(
        group: Spawner<anyhow::Error>,
        connections: usize,
        timeout: Duration,
    ) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let http = legacy::Client::builder(InGroup(group))
            .pool_max_idle_per_host(connections)
            .pool_timer(TokioTimer::new())
            .build(connector);
        Self {
            http,
            timeout,
            requests: AtomicUsize::new(0),
            retries: AtomicUsize::new(0),
        }
    }

    /// Requests sent, and how many of them for a second time or more.
    pub(crate) fn requests(&self) -> (usize, usize) {
        (
            self.requests.load(Ordering::Relaxed),
            self.retries.load(Ordering::Relaxed),
        )
    }

    /// Fetches a URL, trying again when that may help.
    pub(crate) async fn get(&self, url: &Url) -> Result<Fetched, FetchError> {
        let fetched = RETRY
            .retry(|attempt| {
                self.requests.fetch_add(1, Ordering::Relaxed);
                let again = usize::from(attempt.number > 1);
                self.retries.fetch_add(again, Ordering::Relaxed);
                self.exchange(url)
            })
            .classify(FetchError::verdict)
            // It covers the body as well: a server may stop in the middle of it.
            .attempt_timeout(self.timeout)
            .await;
        let gave_up = match fetched {
            Ok(fetched) => return Ok(fetched),
            Err(gave_up) => gave_up,
        };
        match (gave_up.reason(), gave_up.attempt_timed_out()) {
            // No time for another attempt: that says nothing about the page. The scope ends at its
            // deadline, and takes us with it.
            (RetryReason::Deadline, _) => pending().await,
            (_, Some(limit)) => Err(FetchError::Timeout(limit)),
            (_, None) => match gave_up.into_error() {
                Some(error) => Err(error),
                None => pending().await, // cancelled before the first attempt
            },
        }
    }

    async fn exchange(&self, url: &Url) -> Result<Fetched, FetchError> {
        let request = Request::get(url.as_str())
            .header(USER_AGENT, "ringfence-linkcheck")
            .body(Empty::new())?;
        let response = self.http.request(request).await?;
        let status = response.status();
        if status.is_redirection() {
            let target = header(&response, LOCATION).and_then(|target| resolve(url, target).ok());
            return target.map(Fetched::Moved).ok_or(FetchError::Redirect);
        }
        if !status.is_success() {
            let retry_after = header(&response, RETRY_AFTER).and_then(|value| value.parse().ok());
            return Err(FetchError::Status {
                status,
                retry_after: retry_after.map(Duration::from_secs),
            });
        }
        if !header(&response, CONTENT_TYPE).is_some_and(is_html) {
            // Small bodies are read all the same: that keeps the connection for the next request.
            if response
                .body()
                .size_hint()
                .upper()
                .is_some_and(|size| size < 1 << 20)
            {
                response.into_body().collect().await?;
            }
            return Ok(Fetched::Other);
        }
        match Limited::new(response.into_body(), MAX_PAGE).collect().await {
            Ok(body) => Ok(Fetched::Html(body.to_bytes())),
            Err(error) => Err(error
                .downcast()
                .map_or(FetchError::TooLarge, |e| FetchError::Body(*e))),
        }
    }
}

impl FetchError {
    /// Whether another attempt may end differently.
    fn is_transient(&self) -> bool {
        match self {
            Self::Status { status, .. } => matches!(status.as_u16(), 429 | 502 | 503 | 504),
            Self::Timeout(_) | Self::Connection(_) | Self::Body(_) => true,
            Self::Request(_) | Self::TooLarge | Self::Redirect => false,
        }
    }

    /// What the retry makes of an answer.
    fn verdict<T>(answer: &Result<T, Self>) -> Verdict {
        match answer {
            Ok(_) => Verdict::Done,
            Err(error) if error.is_transient() => match error.retry_after() {
                Some(pause) => Verdict::RetryAfter(pause.min(MAX_PAUSE)),
                None => Verdict::Retry,
            },
            Err(_) => Verdict::Permanent,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// The end of the chain says what happened ("connection refused"); the rest says in what.
fn innermost<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost
}

fn header(response: &Response<Incoming>, name: HeaderName) -> Option<&str> {
    response.headers().get(name)?.to_str().ok()
}

fn is_html(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("text/html") || kind.eq_ignore_ascii_case("application/xhtml+xml")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hyper::StatusCode;

    use ringfence::Verdict;

    use super::{ATTEMPTS, FetchError, MAX_PAUSE, is_html};
    use crate::faults::Dice;

    // The client outlasts the faults.
    const _: () = assert!(ATTEMPTS > Dice::SPOILED_VISITS);

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let status = |status| FetchError::Status {
            status,
            retry_after: None,
        };
        assert!(status(StatusCode::SERVICE_UNAVAILABLE).is_transient());
        assert!(FetchError::Timeout(Duration::ZERO).is_transient());
        assert!(!status(StatusCode::NOT_FOUND).is_transient());
        assert!(!FetchError::TooLarge.is_transient());
    }

    #[test]
    fn a_server_is_given_the_time_it_asks_for_within_bounds() {
        let busy = |seconds: Option<u64>| {
            FetchError::verdict(&Err::<(), _>(FetchError::Status {
                status: StatusCode::SERVICE_UNAVAILABLE,
                retry_after: seconds.map(Duration::from_secs),
            }))
        };
        assert_eq!(busy(None), Verdict::Retry);
        assert_eq!(busy(Some(1)), Verdict::RetryAfter(Duration::from_secs(1)));
        assert_eq!(busy(Some(86_400)), Verdict::RetryAfter(MAX_PAUSE));
        let gone = FetchError::verdict(&Err::<(), _>(FetchError::Redirect));
        assert_eq!(
            (FetchError::verdict(&Ok(())), gone),
            (Verdict::Done, Verdict::Permanent)
        );
    }

    #[test]
    fn html_is_known_by_its_content_type() {
        assert!(is_html("text/html") && is_html("Text/HTML; charset=utf-8"));
        assert!(!is_html("text/plain") && !is_html(""));
    }
}
