//! A server that is flaky in one of two ways.

use std::convert::Infallible;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use ringfence::{Scope, Spawner, TaskGroup};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

/// How long an answer takes its worker.
const WORK: Duration = Duration::from_millis(40);
/// How many workers there are.
const WORKERS: usize = 8;
/// How many answers a second that makes: twice what is asked for by default.
pub(crate) const CAPACITY: f64 = WORKERS as f64 / WORK.as_secs_f64();
/// How many requests may wait for one. Further ones are refused.
const LINE: usize = 100;
/// How much longer everything takes while it is broken, and what is slow in a slow tail.
const SLOWER: u32 = 10;

/// The number of steps in which time is shown.
pub(crate) const STEPS: u32 = 32;
/// The first step in which the server is broken, and the first one in which it is well again.
pub(crate) const BROKEN: (u32, u32) = (4, 10);

/// In which way it is flaky.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Story {
    /// Everything is slow, for a while.
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

/// What the server sees.
#[derive(Debug)]
pub(crate) struct Counters {
    story: Story,
    seed: u64,
    total: Duration,
    /// When the story begins; what comes before is not counted.
    begun: OnceLock<Instant>,
    number: AtomicU32,
    requests: [AtomicU32; STEPS as usize],
    later: AtomicU32,
    waiting: AtomicUsize,
    workers: Semaphore,
}

impl Counters {
    pub(crate) fn begin(&self) {
        self.begun.get_or_init(Instant::now);
    }

    /// Returns the number of the step that it is now.
    fn step(&self) -> Option<u32> {
        let since = self.begun.get()?.elapsed();
        Some((since.as_secs_f64() / self.total.as_secs_f64() * f64::from(STEPS)) as u32)
    }

    /// Returns how many requests came in each step.
    pub(crate) fn requests(&self) -> Vec<u32> {
        self.requests
            .iter()
            .map(|step| step.load(Relaxed))
            .collect()
    }

    /// Returns how many requests came in all.
    pub(crate) fn all(&self) -> u32 {
        self.requests().iter().sum::<u32>() + self.later.load(Relaxed)
    }

    fn count(&self) {
        if let Some(step) = self.step() {
            let place = self.requests.get(step as usize);
            place.unwrap_or(&self.later).fetch_add(1, Relaxed);
        }
    }

    /// Does the work, when a worker is free.
    async fn work(&self) {
        self.waiting.fetch_add(1, Relaxed);
        // It is never closed.
        let _worker = self.workers.acquire().await.ok();
        self.waiting.fetch_sub(1, Relaxed);
        let is_broken = self
            .step()
            .is_some_and(|step| (BROKEN.0..BROKEN.1).contains(&step));
        sleep(if is_broken { WORK * SLOWER } else { WORK }).await;
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
            total,
            begun: OnceLock::new(),
            number: AtomicU32::new(0),
            requests: std::array::from_fn(|_| AtomicU32::new(0)),
            later: AtomicU32::new(0),
            waiting: AtomicUsize::new(0),
            workers: Semaphore::new(WORKERS),
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

    /// Serves until cancelled; its connections end with it, and what it works at.
    pub(crate) async fn run(self) -> anyhow::Result<Infallible> {
        let connections = Scope::new().name("connections");
        let served = connections.run(async |group: &TaskGroup<anyhow::Error>| {
            loop {
                match self.listener.accept().await {
                    Ok((stream, _)) => {
                        let counters = Arc::clone(&self.counters);
                        group.spawn(connection(stream, counters, group.spawner()));
                    }
                    Err(_) => sleep(Duration::from_millis(20)).await,
                }
            }
        });
        Ok(served.await?)
    }
}

async fn connection(stream: TcpStream, counters: Arc<Counters>, work: Spawner<anyhow::Error>) {
    stream.set_nodelay(true).ok();
    let service = service_fn(|request| answer(request, &counters, &work));
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new());
    // What goes wrong with a connection is for the client to notice.
    server
        .serve_connection(TokioIo::new(stream), service)
        .await
        .ok();
}

async fn answer(
    _: Request<Incoming>,
    counters: &Arc<Counters>,
    work: &Spawner<anyhow::Error>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    counters.count();
    let mut response = Response::new(Full::from("hello"));
    match counters.story {
        Story::Overload => {
            if counters.waiting.load(Relaxed) >= LINE {
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                return Ok(response);
            }
            // A child of the server: it goes on when the client has hung up, as a query in a database would.
            let counters = Arc::clone(counters);
            let done = work.spawn(async move { counters.work().await });
            if !done.await.is_completed() {
                *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            }
        }
        Story::Tail => {
            let number = counters.number.fetch_add(1, Relaxed);
            let is_slow = dice(counters.seed, number.into()) % 20 == 0;
            sleep(if is_slow { WORK * SLOWER } else { WORK }).await;
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
