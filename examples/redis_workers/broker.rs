//! A Redis stream with a consumer group, as a source of deliveries.
//!
//! An entry that is read belongs to its consumer until it is acknowledged. One that has belonged to somebody for too long,
//! because that one has died, is claimed by the next who looks. So each is handled at least once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ringfence::{BoxError, Deadline, Deliverable, Retry, Source};
use tokio::sync::Mutex;

use crate::resp::{Connection, Reply};

const STREAM: &str = "jobs";
const GROUP: &str = "workers";
/// How long the server may be away.
const PATIENCE: Duration = Duration::from_secs(30);
const AGAIN: Retry = Retry::constant(Duration::from_millis(50)).unlimited();

/// A server, which may go away and come back.
pub(crate) struct Redis {
    address: String,
    connection: Mutex<Option<Connection>>,
}

impl Redis {
    pub(crate) fn new(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            connection: Mutex::new(None),
        }
    }

    /// Sends a command until the server has answered it: so it may be carried out twice.
    ///
    /// Cancel safe: the connection of a call that is dropped is dropped with it.
    pub(crate) async fn call(&self, command: &[&str]) -> io::Result<Reply> {
        let answer = AGAIN.retry(|_| self.try_call(command));
        let answer = answer.until(|reply| !reply.is_loading());
        match answer.deadline(Deadline::after(PATIENCE)).await {
            Ok(Reply::Error(error)) => Err(io::Error::other(error)),
            Ok(reply) => Ok(reply),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    async fn try_call(&self, command: &[&str]) -> io::Result<Reply> {
        let mut place = self.connection.lock().await;
        let mut connection = match place.take() {
            Some(connection) => connection,
            None => Connection::open(&self.address).await?,
        };
        let reply = connection.call(command).await?;
        *place = Some(connection);
        Ok(reply)
    }

    /// Puts jobs into the stream.
    pub(crate) async fn send(&self, jobs: u32) -> Result<(), BoxError> {
        for job in 0..jobs {
            self.call(&["XADD", STREAM, "*", "job", &job.to_string()])
                .await?;
        }
        println!("{jobs} jobs sent");
        Ok(())
    }

    /// Adds one to a counter of a table.
    pub(crate) async fn count(&self, table: &str, field: &str) -> io::Result<()> {
        self.call(&["HINCRBY", table, field, "1"]).await.map(drop)
    }
}

/// The stream, for one worker; a clone is another worker.
pub(crate) struct Stream {
    redis: Arc<Redis>,
    process: String,
    name: String,
    claim_after: Duration,
    is_stopped: Arc<AtomicBool>,
    workers: Arc<AtomicU64>,
}

impl Stream {
    pub(crate) async fn open(
        address: &str,
        process: &str,
        claim_after: Duration,
    ) -> io::Result<Self> {
        let redis = Arc::new(Redis::new(address));
        let made = redis.call(&["XGROUP", "CREATE", STREAM, GROUP, "0", "MKSTREAM"]);
        match made.await {
            Err(error) if !error.to_string().starts_with("BUSYGROUP") => return Err(error),
            _ => {}
        }
        Ok(Self {
            redis,
            process: process.to_owned(),
            name: process.to_owned(),
            claim_after,
            is_stopped: Arc::default(),
            workers: Arc::default(),
        })
    }

    /// Takes over what somebody has left for too long.
    async fn claim(&self) -> io::Result<Option<Job>> {
        let idle = self.claim_after.as_millis().to_string();
        let command = [
            "XAUTOCLAIM",
            STREAM,
            GROUP,
            &self.name,
            &idle,
            "0",
            "COUNT",
            "1",
        ];
        let reply = self.redis.call(&command).await?;
        let job = reply.list().get(1).and_then(|entries| self.job(entries));
        if let Some(job) = &job {
            self.redis.count("redelivered", &job.name).await?;
        }
        Ok(job)
    }

    /// Waits a little for something new.
    async fn read(&self) -> io::Result<Option<Job>> {
        let command = [
            "XREADGROUP",
            "GROUP",
            GROUP,
            &self.name,
            "COUNT",
            "1",
            "BLOCK",
            "50",
            "STREAMS",
            STREAM,
            ">",
        ];
        let reply = self.redis.call(&command).await?;
        let stream = reply.list().first();
        Ok(stream
            .and_then(|stream| stream.list().get(1))
            .and_then(|entries| self.job(entries)))
    }

    /// Whether everything that was sent has been acknowledged.
    async fn is_empty(&self) -> io::Result<bool> {
        let groups = self.redis.call(&["XINFO", "GROUPS", STREAM]).await?;
        let group = groups.list().first().map_or(&[][..], Reply::list);
        let figure = |name: &str| {
            let at = group.iter().position(|key| key.text() == Some(name))?;
            group.get(at + 1)?.number()
        };
        Ok((figure("pending"), figure("lag")) == (Some(0), Some(0)))
    }

    fn job(&self, entries: &Reply) -> Option<Job> {
        let entry = entries.list().first()?.list();
        let fields = entry.get(1)?.list();
        Some(Job {
            redis: self.redis.clone(),
            id: entry.first()?.text()?.to_owned(),
            name: fields.get(1)?.text()?.to_owned(),
        })
    }
}

impl Clone for Stream {
    fn clone(&self) -> Self {
        let number = self.workers.fetch_add(1, Ordering::Relaxed);
        Self {
            // A connection of its own: a read blocks it.
            redis: Arc::new(Redis::new(&self.redis.address)),
            process: self.process.clone(),
            name: format!("{}-{number}", self.process),
            claim_after: self.claim_after,
            is_stopped: self.is_stopped.clone(),
            workers: self.workers.clone(),
        }
    }
}

impl Source for Stream {
    type Delivery = Job;
    type Error = io::Error;

    // Cancel safe: what the server has given out to a call that was dropped is claimed later.
    async fn deliver(&mut self) -> io::Result<Option<Job>> {
        while !self.is_stopped.load(Ordering::Relaxed) {
            if let Some(job) = self.claim().await? {
                return Ok(Some(job));
            }
            if let Some(job) = self.read().await? {
                return Ok(Some(job));
            }
            // This program ends when the work does; a service would go on.
            if self.is_empty().await? {
                break;
            }
        }
        Ok(None)
    }

    fn stop(&mut self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }
}

/// An entry of the stream. Dropped, it stays with this worker until another one claims it.
pub(crate) struct Job {
    redis: Arc<Redis>,
    id: String,
    name: String,
}

impl Job {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

impl Deliverable for Job {
    type Error = io::Error;

    async fn done(self) -> io::Result<()> {
        let command = ["XACK", STREAM, GROUP, &self.id];
        self.redis.call(&command).await.map(drop)
    }
}
