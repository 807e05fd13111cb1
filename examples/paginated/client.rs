//! The client: pooled connections, retries, and a stream of what is on many pages.

use std::future::pending;
use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::{StatusCode, Uri, header::RETRY_AFTER};
use hyper_util::client::legacy::{self, connect::HttpConnector};
use ringfence::queue::{Receiver, Sender, bounded};
use ringfence::{BoxError, Retry, RetryReason, Spawner, TaskGroup, Verdict};

/// So many orders wait for whoever reads, at most. While there is no room for those of one page, the next is not asked for.
pub(crate) const AHEAD: usize = 40;
const RETRY: Retry = Retry::exponential(Duration::from_millis(50)).attempts(4);

#[derive(Clone)]
pub(crate) struct Api {
    http: legacy::Client<HttpConnector, Empty<Bytes>>,
    address: SocketAddr,
}

#[derive(Debug, thiserror::Error)]
enum ApiError {
    #[error("{0}")]
    Status(StatusCode, Option<Duration>),
    #[error(transparent)]
    Connection(#[from] legacy::Error),
    #[error("cut off: {0}")]
    Body(#[from] hyper::Error),
}

/// Whether another attempt may end differently, and when.
fn verdict(answer: &Result<String, ApiError>) -> Verdict {
    match answer {
        Ok(_) => Verdict::Done,
        Err(ApiError::Status(_, Some(hint))) => Verdict::RetryAfter(*hint),
        Err(ApiError::Status(status, None)) => status.is_server_error().into(),
        Err(ApiError::Connection(_) | ApiError::Body(_)) => Verdict::Retry,
    }
}

/// hyper drives each connection in a task; these tasks are children of our group.
#[derive(Clone)]
struct InGroup(Spawner<BoxError>);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for InGroup {
    fn execute(&self, connection: F) {
        self.0.spawn_background(connection);
    }
}

impl Api {
    pub(crate) fn new(group: Spawner<BoxError>, address: SocketAddr) -> Self {
        let http = legacy::Client::builder(InGroup(group)).build_http();
        Self { http, address }
    }

    /// A stream of all orders. A child of `group` fetches its pages, ahead of whoever reads; what goes wrong there fails the
    /// group. Dropped, the stream takes the request with it that is under way.
    pub(crate) fn orders(&self, group: &TaskGroup) -> Receiver<usize> {
        let (sender, orders) = bounded(AHEAD);
        let api = self.clone();
        group.named("pages").spawn(async move {
            tokio::select! {
                () = sender.closed() => Ok(()), // nobody reads any more
                ended = api.pages(&sender) => ended,
            }
        });
        orders
    }

    async fn pages(&self, orders: &Sender<usize>) -> Result<(), BoxError> {
        let mut cursor = Some("0".to_owned());
        while let Some(from) = cursor {
            let page = self.get(format!("/orders?from={from}")).await?;
            let (next, page) = page.split_once('\n').ok_or("no cursor on a page")?;
            for order in page.lines() {
                if orders.send(order.parse()?).await.is_err() {
                    return Ok(());
                }
            }
            cursor = next.strip_prefix("next ").map(str::to_owned);
        }
        Ok(())
    }

    /// The details of an order: to keep it short, its number.
    pub(crate) async fn details(self, order: usize) -> Result<usize, BoxError> {
        let details = self.get(format!("/orders/{order}")).await?;
        Ok(details.parse()?)
    }

    /// Asks again where that helps, when the server wants it, as long as there is time in the group around.
    async fn get(&self, path: String) -> Result<String, BoxError> {
        let uri = Uri::builder().scheme("http").path_and_query(path);
        let uri = uri.authority(self.address.to_string()).build()?;
        let answer = RETRY.retry(|_| self.attempt(uri.clone()));
        let answer = answer.classify(verdict);
        match answer.attempt_timeout(Duration::from_secs(2)).await {
            // The deadline is that of the group around, and the group says so better.
            Err(error) if error.reason() == RetryReason::Deadline => pending().await,
            answer => Ok(answer?),
        }
    }

    async fn attempt(&self, uri: Uri) -> Result<String, ApiError> {
        let answer = self.http.get(uri).await?;
        let status = answer.status();
        let hint = answer.headers().get(RETRY_AFTER);
        let hint = hint.and_then(|hint| hint.to_str().ok()?.parse().ok());
        // Read whatever it is, so that the connection can be used again.
        let body = answer.into_body().collect().await?.to_bytes();
        if !status.is_success() {
            return Err(ApiError::Status(status, hint.map(Duration::from_secs)));
        }
        Ok(String::from_utf8_lossy(&body).into_owned())
    }
}
