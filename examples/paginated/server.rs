//! The server: slow now and then, refusing now and then, and it counts what it sees.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::future::pending;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, StatusCode, Uri, header::RETRY_AFTER};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use ringfence::{BoxError, TaskGroup, scope};
use tokio::net::{TcpListener, TcpStream};
use tokio::{sync::watch, time::sleep};

pub(crate) const ORDERS: usize = 400;
pub(crate) const PAGE: usize = 20;
/// Which requests are slow or refused depends on this and on their path.
const SEED: u64 = 25;
const AGAIN: Duration = Duration::from_secs(1);

/// What the server has seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// So many orders are told the details of, and one more page; all other requests wait for ever.
    pub(crate) answers: usize,
    pub(crate) alive: usize,
    pub(crate) most: usize,
    pub(crate) pages: usize,
    /// Requests that nobody waited for any more.
    pub(crate) cut: usize,
    /// Each path once, and how many came back too early.
    pub(crate) refused: HashMap<String, Instant>,
    pub(crate) hasty: usize,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            answers: _,
            alive,
            most,
            pages,
            cut,
            refused,
            hasty,
        } = self;
        let refused = refused.len();
        write!(
            f,
            "{pages} pages asked for, at most {most} requests at once, {refused} refused, {hasty} of them back too early, \
             {cut} cut off, {alive} left"
        )
    }
}

/// A request that is being answered.
struct Alive<'a> {
    seen: &'a watch::Sender<Seen>,
    is_answered: bool,
}

impl Drop for Alive<'_> {
    fn drop(&mut self) {
        self.seen.send_modify(|seen| {
            seen.alive -= 1;
            seen.cut += usize::from(!self.is_answered);
        });
    }
}

/// Serves until it is cancelled.
pub(crate) async fn serve(
    listener: TcpListener,
    seen: watch::Sender<Seen>,
) -> Result<Infallible, BoxError> {
    let connections = scope(async |group: &TaskGroup| {
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            group.spawn(connection(stream, seen.clone()));
        }
    });
    Ok(connections.await?)
}

async fn connection(stream: TcpStream, seen: watch::Sender<Seen>) {
    let answer = service_fn(|request: Request<Incoming>| answer(request.uri().clone(), &seen));
    let served = http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
    drop(served.await); // what goes wrong with it is for the client to notice
}

async fn answer(
    uri: Uri,
    seen: &watch::Sender<Seen>,
) -> Result<Response<Full<Bytes>>, hyper::http::Error> {
    let path = uri.to_string();
    let mut dice = DefaultHasher::new();
    (SEED, &path).hash(&mut dice);
    let dice = dice.finish();
    let (mut is_mute, mut is_refused) = (false, false);
    let (order, from) = (
        path.strip_prefix("/orders/"),
        path.strip_prefix("/orders?from="),
    );
    seen.send_modify(|seen| {
        seen.alive += 1;
        seen.most = seen.most.max(seen.alive);
        seen.pages += usize::from(from.is_some());
        is_mute = order.is_some_and(|order| number(order) >= seen.answers)
            || from.is_some_and(|from| number(from) > seen.answers);
        match seen.refused.get(&path) {
            Some(when) => seen.hasty += usize::from(when.elapsed() < AGAIN),
            None if dice % 128 > 0 => {}
            None => {
                seen.refused.insert(path.clone(), Instant::now());
                is_refused = true;
            }
        }
    });
    let mut alive = Alive {
        seen,
        is_answered: false,
    };
    if is_mute {
        pending::<()>().await;
    }
    sleep(Duration::from_millis(if dice % 8 == 1 { 60 } else { 5 })).await;
    alive.is_answered = true;

    if is_refused {
        let refusal = Response::builder().status(StatusCode::SERVICE_UNAVAILABLE);
        let refusal = refusal.header(RETRY_AFTER, AGAIN.as_secs());
        return refusal.body(Full::default());
    }
    let body = from.map_or_else(|| order.unwrap_or_default().to_owned(), page);
    Ok(Response::new(body.into()))
}

/// A page of orders, and where to go on.
fn page(from: &str) -> String {
    let from = number(from);
    let end = ORDERS.min(from + PAGE);
    let mut page = match end {
        ORDERS => "end\n".to_owned(),
        next => format!("next {next}\n"),
    };
    for order in from..end {
        page += &format!("{order}\n");
    }
    page
}

fn number(text: &str) -> usize {
    text.parse().unwrap_or(ORDERS)
}
