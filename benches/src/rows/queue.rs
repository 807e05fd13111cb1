//! What does it cost to pass an item from task to task?

#![expect(
    clippy::disallowed_methods,
    reason = "producers and consumers are bare tasks, the same for all contenders"
)]

use crate::row::Limits;
use crate::shape::ok;
use crate::{Contender, Goal, Row, child};

/// A queue of numbers.
trait Pipe: 'static {
    type Sender: Send + 'static;
    type Receiver: Send + 'static;

    fn make(
        capacity: usize,
        producers: usize,
        consumers: usize,
    ) -> (Vec<Self::Sender>, Vec<Self::Receiver>);

    /// Sends the numbers from `from` to `to`.
    fn send(sender: Self::Sender, from: u64, to: u64) -> impl Future<Output = ()> + Send;

    /// Receives until the end, and gives the sum.
    fn receive(receiver: Self::Receiver) -> impl Future<Output = u64> + Send;
}

async fn pass<P: Pipe>(n: usize, capacity: usize, producers: usize, consumers: usize) -> u64 {
    let (senders, receivers) = P::make(capacity, producers, consumers);
    let consumers: Vec<_> = receivers
        .into_iter()
        .map(|receiver| tokio::spawn(P::receive(receiver)))
        .collect();
    let share = (n / producers) as u64;
    for (i, sender) in senders.into_iter().enumerate() {
        let from = i as u64 * share;
        drop(tokio::spawn(P::send(sender, from, from + share)));
    }
    let mut sum = 0;
    for consumer in consumers {
        sum += ok(consumer.await);
    }
    sum
}

fn copies<T: Clone>(one: T, number: usize) -> Vec<T> {
    std::iter::repeat_n(one, number).collect()
}

#[inline(always)]
fn count(sum: &mut u64, item: u64) {
    *sum += item;
    child::received();
}

/// Makes a contender of a crate whose senders and receivers clone.
macro_rules! pipe {
    ($name:ident, $sender:ty, $receiver:ty, $make:expr, |$tx:ident, $item:ident| $send:expr, |$rx:ident| $recv:expr) => {
        struct $name;

        impl Pipe for $name {
            type Sender = $sender;
            type Receiver = $receiver;

            fn make(
                capacity: usize,
                producers: usize,
                consumers: usize,
            ) -> (Vec<$sender>, Vec<$receiver>) {
                let (sender, receiver) = $make(capacity);
                (copies(sender, producers), copies(receiver, consumers))
            }

            async fn send($tx: $sender, from: u64, to: u64) {
                for $item in from..to {
                    ok($send);
                }
            }

            #[allow(
                clippy::allow_attributes,
                unused_mut,
                reason = "some peers receive through a shared reference"
            )]
            async fn receive(mut $rx: $receiver) -> u64 {
                let mut sum = 0;
                while let Ok(item) = $recv {
                    count(&mut sum, item);
                }
                sum
            }
        }
    };
}

pipe!(
    AsyncChannel,
    async_channel::Sender<u64>,
    async_channel::Receiver<u64>,
    async_channel::bounded,
    |tx, item| tx.send(item).await,
    |rx| rx.recv().await
);
pipe!(
    Flume,
    flume::Sender<u64>,
    flume::Receiver<u64>,
    flume::bounded,
    |tx, item| tx.send_async(item).await,
    |rx| rx.recv_async().await
);
pipe!(
    Kanal,
    kanal::AsyncSender<u64>,
    kanal::AsyncReceiver<u64>,
    kanal::bounded_async,
    |tx, item| tx.send(item).await,
    |rx| rx.recv().await
);
pipe!(
    Crossfire,
    crossfire::MAsyncTx<crossfire::mpmc::Array<u64>>,
    crossfire::MAsyncRx<crossfire::mpmc::Array<u64>>,
    crossfire::mpmc::bounded_async::<u64>,
    |tx, item| tx.send(item).await,
    |rx| rx.recv().await
);
pipe!(
    Ours,
    ringfence::queue::Sender<u64>,
    ringfence::queue::Receiver<u64>,
    ringfence::queue::bounded,
    |tx, item| tx.send(item).await,
    |rx| rx.recv().await
);
pipe!(
    OurDeliveries,
    ringfence::queue::Sender<u64>,
    ringfence::queue::Receiver<u64>,
    ringfence::queue::bounded,
    |tx, item| tx.send(item).await,
    |rx| rx.deliver().await.map(|delivery| *delivery)
);

struct Tokio;

impl Pipe for Tokio {
    type Sender = tokio::sync::mpsc::Sender<u64>;
    type Receiver = tokio::sync::mpsc::Receiver<u64>;

    fn make(
        capacity: usize,
        producers: usize,
        _: usize,
    ) -> (Vec<Self::Sender>, Vec<Self::Receiver>) {
        let (sender, receiver) = tokio::sync::mpsc::channel(capacity);
        (copies(sender, producers), vec![receiver])
    }

    async fn send(sender: Self::Sender, from: u64, to: u64) {
        for item in from..to {
            ok(sender.send(item).await);
        }
    }

    async fn receive(mut receiver: Self::Receiver) -> u64 {
        let mut sum = 0;
        while let Some(item) = receiver.recv().await {
            count(&mut sum, item);
        }
        sum
    }
}

const MANY: usize = 64;

struct OurBatches;

impl Pipe for OurBatches {
    type Sender = ringfence::queue::Sender<u64>;
    type Receiver = ringfence::queue::Receiver<u64>;

    fn make(
        capacity: usize,
        producers: usize,
        consumers: usize,
    ) -> (Vec<Self::Sender>, Vec<Self::Receiver>) {
        Ours::make(capacity, producers, consumers)
    }

    async fn send(sender: Self::Sender, from: u64, to: u64) {
        let mut batch = Vec::with_capacity(MANY);
        for start in (from..to).step_by(MANY) {
            batch.extend(start..to.min(start + MANY as u64));
            ok(sender.send_many(&mut batch).await);
        }
    }

    async fn receive(mut receiver: Self::Receiver) -> u64 {
        let mut sum = 0;
        let mut batch = Vec::with_capacity(MANY);
        while receiver.recv_many(&mut batch, MANY).await.is_ok() {
            for item in batch.drain(..) {
                count(&mut sum, item);
            }
        }
        sum
    }
}

macro_rules! contender {
    ($name:literal, $pipe:ty, $capacity:expr, $tasks:expr) => {
        Contender {
            name: $name,
            run: |n, _| Box::pin(pass::<$pipe>(n, $capacity, $tasks, $tasks)),
        }
    };
}

const fn goal(who: &'static str, against: &'static str, ratio: f64) -> Goal {
    Goal {
        who,
        against,
        ct: Some(ratio),
        mt: Some(ratio),
        instructions: None,
    }
}

const fn row(
    name: &'static str,
    question: &'static str,
    bases: (&'static str, Option<&'static str>),
    contenders: &'static [Contender],
    goals: &'static [Goal],
) -> Row {
    Row {
        name,
        question,
        unit: "items",
        units: 400_000,
        counted: (20_000, 40_000),
        round: |n| n / 4 * 4,
        from_gate: false,
        checksum: |n| (n as u64 * (n as u64 - 1)) / 2,
        ended: |n| n,
        bases,
        contenders,
        goals,
        limits: Limits {
            locked: None,
            allocations: Some(0.0),
            bytes: Some(1.0),
        },
    }
}

/// One producer and one consumer, capacity 128.
pub static PAIR: Row = row(
    "pair",
    "What does it cost to pass an item from one task to another?",
    ("crossfire", Some("async-channel")),
    &[
        contender!("crossfire", Crossfire, 128, 1),
        contender!("async-channel", AsyncChannel, 128, 1),
        contender!("flume", Flume, 128, 1),
        contender!("tokio mpsc", Tokio, 128, 1),
        contender!("kanal", Kanal, 128, 1),
        contender!("ringfence", Ours, 128, 1),
        contender!("ringfence, deliveries", OurDeliveries, 128, 1),
    ],
    &[
        goal("ringfence", "crossfire", 1.0),
        goal("ringfence, deliveries", "ringfence", 1.6),
    ],
);

/// Four producers and four consumers, capacity 128.
pub static CROWD: Row = row(
    "crowd",
    "What does it cost where four tasks send and four receive?",
    ("crossfire", Some("async-channel")),
    &[
        contender!("crossfire", Crossfire, 128, 4),
        contender!("async-channel", AsyncChannel, 128, 4),
        contender!("flume", Flume, 128, 4),
        contender!("kanal", Kanal, 128, 4),
        contender!("ringfence", Ours, 128, 4),
        contender!("ringfence, deliveries", OurDeliveries, 128, 4),
    ],
    &[
        goal("ringfence", "crossfire", 1.0),
        goal("ringfence, deliveries", "ringfence", 1.6),
    ],
);

/// Four producers and four consumers, capacity 1024.
pub static WIDE: Row = row(
    "wide",
    "And with more room?",
    ("crossfire", Some("async-channel")),
    &[
        contender!("crossfire", Crossfire, 1024, 4),
        contender!("async-channel", AsyncChannel, 1024, 4),
        contender!("flume", Flume, 1024, 4),
        contender!("kanal", Kanal, 1024, 4),
        contender!("ringfence", Ours, 1024, 4),
    ],
    &[goal("ringfence", "crossfire", 1.0)],
);

/// Four producers and four consumers, capacity 1024, ours in batches of 64.
pub static BATCH: Row = row(
    "batch",
    "What does an item cost in a batch of 64?",
    ("kanal", None),
    &[
        contender!("kanal", Kanal, 1024, 4),
        contender!("ringfence, batches of 64", OurBatches, 1024, 4),
    ],
    &[goal("ringfence, batches of 64", "kanal", 1.0)],
);

/// So many producers and one consumer, capacity 128: the sum of `n` numbers.
pub async fn producers(who: &str, producers: usize, n: usize) -> u64 {
    match who {
        "crossfire" => pass::<Crossfire>(n, 128, producers, 1).await,
        "async-channel" => pass::<AsyncChannel>(n, 128, producers, 1).await,
        "tokio mpsc" => pass::<Tokio>(n, 128, producers, 1).await,
        "kanal" => pass::<Kanal>(n, 128, producers, 1).await,
        _ => pass::<Ours>(n, 128, producers, 1).await,
    }
}
