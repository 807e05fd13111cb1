//! A metrics pipeline: many producers, a slow sink that likes batches, and more points than it can take.
//!
//! ```sh
//! cargo run --release --example metrics_pipeline
//! ```
//!
//! Points go into a queue that drops the oldest when it is full, so that producers never wait; the sink takes batches of up
//! to 100 points, or what there is after a second. When the producers stop, the queue drains. Each point was stored or
//! dropped, and the program counts both.

#![expect(clippy::print_stdout, reason = "it is what the run has to say")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ringfence::queue::{Overflow, Queue, Receiver, Sender};
use ringfence::{TaskGroup, scope};
use tokio::time::{Instant, sleep};

const PRODUCERS: u64 = 8;
const POINTS: u64 = 4_000;
const CAPACITY: usize = 1_000;
const BATCH: usize = 100;
const LINGER: Duration = Duration::from_secs(1);
/// What the sink needs for a batch: so it takes 10,000 points a second at most.
const SINK: Duration = Duration::from_millis(10);

#[derive(Clone, Copy)]
struct Point {
    producer: u64,
    at: Instant,
}

/// Sends bursts, 16,000 points a second or so from each producer, then falls silent.
async fn produce(producer: u64, points: Sender<Point>) -> Result<(), ringfence::BoxError> {
    for burst in 0..POINTS / 40 {
        for _ in 0..40 {
            let at = Instant::now();
            // Never waits: the oldest point gives way.
            points.send(Point { producer, at }).await?;
        }
        // The last ones come in a trickle, so that a batch lingers.
        let pause = if burst < 80 { 2 } else { 20 };
        sleep(Duration::from_millis(pause)).await;
    }
    Ok(())
}

#[derive(Default)]
struct Stored {
    points: u64,
    batches: u64,
    largest: usize,
    oldest: Duration,
    by_producer: [u64; PRODUCERS as usize],
}

/// Stores batches until the queue has ended.
async fn store(mut points: Receiver<Point>) -> Stored {
    let mut stored = Stored::default();
    let mut batch = Vec::with_capacity(BATCH);
    while let Ok(count) = points.recv_batch(&mut batch, BATCH, LINGER).await {
        sleep(SINK).await; // the network, a disk
        stored.batches += 1;
        stored.points += count as u64;
        stored.largest = stored.largest.max(count);
        for point in batch.drain(..) {
            stored.oldest = stored.oldest.max(point.at.elapsed());
            stored.by_producer[point.producer as usize] += 1;
        }
    }
    stored
}

#[tokio::main]
async fn main() -> Result<(), ringfence::GroupError<ringfence::BoxError>> {
    let dropped = Arc::new(AtomicU64::new(0));
    let counted = dropped.clone();
    let (sender, receiver) = Queue::bounded(CAPACITY)
        .overflow(Overflow::DropOldest)
        .on_discard(move |_: Point, _| {
            counted.fetch_add(1, Ordering::Relaxed);
        })
        .build();

    let stored = scope(async |group: &TaskGroup| {
        let sink = group
            .named("sink")
            .spawn(async move { Ok(store(receiver).await) });
        for producer in 0..PRODUCERS {
            group.spawn(produce(producer, sender.clone()));
        }
        drop(sender); // when the producers are done, the queue drains, and the sink ends
        Ok(sink.await)
    })
    .await?;

    let dropped = dropped.load(Ordering::Relaxed);
    println!(
        "{} points were sent by {PRODUCERS} producers",
        PRODUCERS * POINTS
    );
    println!(
        "{} points were stored in {} batches of up to {}",
        stored.points, stored.batches, stored.largest
    );
    println!("{dropped} points gave way to newer ones");
    println!("the oldest stored point was {:?} old", stored.oldest);

    assert_eq!(
        stored.points + dropped,
        PRODUCERS * POINTS,
        "each has one fate"
    );
    assert!(stored.largest <= BATCH);
    assert!(
        stored.by_producer.iter().all(|points| *points > 0),
        "all were heard"
    );
    assert!(dropped > 0, "it was overloaded");
    Ok(())
}
