//! A server that is flaky in one of two ways.

use std::convert::Infallible;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use ringfence::{Scope, TaskGroup};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};

/// How long an answer takes.
const WORK: Duration = Duration::from_millis(40);
/// Requests at once that the server has room for: three times what comes at the default rate.
const ROOM: u64 = 12;
/// The same while it is broken: a little less than what comes.
const LITTLE_ROOM: u64 = 3;

/// In which way it is flaky.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Story {
    /// Little room for a while.
    Overload,
    /// One request in twenty is slow.
    Tail,
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Overload => "overload",
            Self::Tail => "slow tail",
        })
    }
}

#[derive(Debug)]
pub(crate) struct Counters {
    story: Story,
    seed: u64,
    start: Instant,
    total: Duration,
    requests: AtomicU64,
    busy: AtomicU64,
}

impl Counters {
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    /// Broken from a tenth of the time to three tenths.
    fn room(&self) -> u64 {
        let tenths = self.start.elapsed().as_secs_f64() / self.total.as_secs_f64() * 10.0;
        if (1.0..3.0).contains(&tenths) {
            LITTLE_ROOM
        } else {
            ROOM
        }
    }
}

#[derive(Debug)]
pub(crate) struct Server {
    listener: TcpListener,
    address: SocketAddr,
    counters: Arc<Counters>,
}

impl Server {
    pub(crate) async fn bind(story: Story, seed: u64, total: Duration) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let counters = Counters {
            story,
            seed,
            start: Instant::now(),
            total,
            requests: AtomicU64::new(0),
            busy: AtomicU64::new(0),
        };
        Ok(Self {
            listener,
            address,
            counters: Arc::new(counters),
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Serves until cancelled; its connections end with it.
    pub(crate) async fn run(self) -> anyhow::Result<Infallible> {
        let connections = Scope::new().name("connections");
        let served = connections.run(async |group: &TaskGroup<anyhow::Error>| {
            loop {
                match self.listener.accept().await {
                    Ok((stream, _)) => {
                        group.spawn(connection(stream, Arc::clone(&self.counters)));
                    }
                    Err(_) => sleep(Duration::from_millis(20)).await,
                }
            }
        });
        Ok(served.await?)
    }
}

async fn connection(stream: TcpStream, counters: Arc<Counters>) {
    stream.set_nodelay(true).ok();
    let service = service_fn(|request| answer(request, &counters));
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new());
    // What goes wrong with a connection is for the client to notice.
    server
        .serve_connection(TokioIo::new(stream), service)
        .await
        .ok();
}

/// Counts itself out, also when the client hangs up.
struct Busy<'c>(&'c Counters);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Relaxed);
    }
}

async fn answer(
    _: Request<Incoming>,
    counters: &Counters,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let number = counters.requests.fetch_add(1, Relaxed);
    let busy = counters.busy.fetch_add(1, Relaxed) + 1;
    let _busy = Busy(counters);
    let mut response = Response::new(Full::from("hello"));
    match counters.story {
        Story::Overload => {
            // What is refused is in the way of others all the same.
            sleep(WORK).await;
            if busy > counters.room() {
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            }
        }
        Story::Tail => {
            let is_slow = dice(counters.seed, number) % 20 == 0;
            sleep(if is_slow { WORK * 10 } else { WORK }).await;
        }
    }
    Ok(response)
}

/// The same number for the same request in every run.
fn dice(seed: u64, number: u64) -> u64 {
    let mut word = (seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_add(1);
    word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}
