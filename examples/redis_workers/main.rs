//! The same pool of workers on a queue in this process, or on a Redis stream that many processes share.
//!
//! ```sh
//! cargo run --release --example redis_workers                             # a queue in this process
//! redis-server --port 7777 --appendonly yes --appendfsync always &
//! cargo run --release --example redis_workers -- --redis 127.0.0.1:7777 --send 1000
//! cargo run --release --example redis_workers -- --redis 127.0.0.1:7777   # as many of these as you like
//! ```
//!
//! Each job is handled at least once, whatever is killed: the worker, half-way through a job, or the server.
//! `tests/redis_workers.rs` does both.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it is what the run has to say"
)]

mod broker;
mod resp;

use std::sync::Arc;
use std::time::Duration;

use broker::{Redis, Stream};
use clap::Parser;
use ringfence::queue::{Delivery, Queue};
use ringfence::{BoxError, Workers};
use tokio::time::sleep;

/// Work through jobs, in this process or with others
#[derive(Debug, Parser)]
struct Options {
    /// A Redis server; without it, the jobs are in a queue of this process
    #[arg(long, value_name = "HOST:PORT")]
    redis: Option<String>,

    /// Put so many jobs into the stream, and end
    #[arg(long, value_name = "N", requires = "redis")]
    send: Option<u32>,

    /// Workers of this process
    #[arg(long, value_name = "N", default_value = "4", value_parser = clap::value_parser!(u16).range(1..))]
    workers: u16,

    /// How long a job takes, in milliseconds
    #[arg(long, value_name = "MS", default_value = "5")]
    work: u64,

    /// After how many milliseconds a job of a silent worker is taken over
    #[arg(long, value_name = "MS", default_value = "1000")]
    claim_after: u64,

    /// Name of this process among the others
    #[arg(long, value_name = "NAME", default_value = "worker")]
    name: String,
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let options = Options::parse();
    match &options.redis {
        None => in_process(&options).await,
        Some(address) => match options.send {
            Some(jobs) => Redis::new(address).send(jobs).await,
            None => on_redis(&options, address).await,
        },
    }
}

/// The default: a queue with redelivery, and jobs that fail the first time now and then.
async fn in_process(options: &Options) -> Result<(), BoxError> {
    const JOBS: u32 = 100;
    let (sender, receiver) = Queue::bounded(16).redeliver(3).build();
    let stats = receiver.clone();
    let work = Duration::from_millis(options.work);
    let pool = Workers::new(usize::from(options.workers)).run(
        receiver,
        move |job: Delivery<u32>| async move {
            sleep(work).await;
            if *job % 10 == 0 && job.attempt() == 1 {
                return Err("a bad day"); // dropped, so delivered again
            }
            Ok(job)
        },
    );
    let feed = async {
        for job in 0..JOBS {
            sender.send(job).await?;
        }
        drop(sender); // no more: the pool drains the queue and ends
        Ok::<_, BoxError>(())
    };
    let (tally, fed) = tokio::join!(pool, feed);
    fed?;
    let tally = tally?;
    let redelivered = stats.stats().redelivered;
    println!("{} jobs done, {redelivered} delivered again", tally.done);
    assert_eq!((tally.done, redelivered), (u64::from(JOBS), 10));
    Ok(())
}

/// The same pool, with the broker where the queue stood.
async fn on_redis(options: &Options, address: &str) -> Result<(), BoxError> {
    let redis = Arc::new(Redis::new(address));
    let claim_after = Duration::from_millis(options.claim_after);
    let stream = Stream::open(address, &options.name, claim_after).await?;
    let work = Duration::from_millis(options.work);
    let pool = Workers::new(usize::from(options.workers))
        .on_failure(|failure| eprintln!("not done: {failure:?}"))
        .run(stream, move |job: broker::Job| {
            let redis = redis.clone();
            async move {
                sleep(work).await;
                redis.count("handled", job.name()).await?;
                Ok::<_, BoxError>(job)
            }
        });
    let tally = pool.await?;
    println!("{} jobs done by {}", tally.done, options.name);
    Ok(())
}
