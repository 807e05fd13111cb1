use std::{
    num::NonZeroUsize,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt, TryStreamExt, stream};
use futures_concurrency::concurrent_stream::{ConcurrentStream, IntoConcurrentStream};
use tokio::time::{Instant, sleep};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Counts how many are at work, and the most at once.
#[derive(Clone, Default)]
struct AtWork(Arc<(AtomicUsize, AtomicUsize)>);

impl AtWork {
    async fn on(self, _: u32) {
        let now = self.0.0.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.1.fetch_max(now, Ordering::SeqCst);
        sleep(ms(10)).await;
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }

    fn most(&self) -> usize {
        self.0.1.load(Ordering::SeqCst)
    }
}

/// Each item takes two pauses of 10 ms; who takes results is busy for 100 ms after each.
#[tokio::test(start_paused = true)]
async fn buffer_unordered_stands_still_while_its_taker_is_busy() {
    let begin = Instant::now();
    let ended = Arc::new(Mutex::new(Vec::new()));
    let work = |_: u32| {
        let ended = Arc::clone(&ended);
        async move {
            sleep(ms(10)).await;
            sleep(ms(10)).await;
            let at = begin.elapsed().as_millis();
            ended
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(at);
        }
    };
    let mut results = pin!(stream::iter(0..4).map(work).buffer_unordered(4));
    while results.next().await.is_some() {
        sleep(ms(100)).await;
    }
    let ended = ended.lock().unwrap_or_else(PoisonError::into_inner).clone();
    assert_eq!(ended.len(), 4);
    assert!(
        ended[3] > 200,
        "{ended:?}: the last of them waited for the taker"
    );
}

#[tokio::test(start_paused = true)]
async fn futures_concurrency_heeds_its_limit_in_for_each_and_not_in_collect() {
    let limit = NonZeroUsize::new(3);
    let items: Vec<u32> = (0..10).collect();
    let all = AtWork::default();
    let each = all.clone();
    let _: Vec<()> = items
        .clone()
        .into_co_stream()
        .map(move |n| each.clone().on(n))
        .limit(limit)
        .collect()
        .await;
    assert_eq!(all.most(), 10);

    let few = AtWork::default();
    let each = few.clone();
    let items = items.into_co_stream().limit(limit);
    items.for_each(move |n| each.clone().on(n)).await;
    assert_eq!(few.most(), 3);
}

#[tokio::test(start_paused = true)]
async fn for_each_concurrent_heeds_its_limit() {
    let few = AtWork::default();
    stream::iter(0..10)
        .for_each_concurrent(3, |n| few.clone().on(n))
        .await;
    assert_eq!(few.most(), 3);
}

/// The first error is there at once, and what was started with it is gone.
#[tokio::test(start_paused = true)]
async fn the_first_error_drops_the_others() {
    let alive = AtomicUsize::new(0);
    let work = |n: u32| {
        alive.fetch_add(1, Ordering::SeqCst);
        let counted = Counted(&alive);
        async move {
            let _counted = counted;
            sleep(ms(if n == 1 { 1 } else { 1_000 })).await;
            if n == 1 { Err(n) } else { Ok(()) }
        }
    };
    let begin = Instant::now();
    let items = stream::iter((0..3).map(Ok));
    assert_eq!(items.try_for_each_concurrent(3, work).await, Err(1));
    assert_eq!(alive.load(Ordering::SeqCst), 0);

    let items = (0..3).collect::<Vec<_>>().into_co_stream();
    assert_eq!(items.try_for_each(work).await, Err(1));
    assert_eq!(alive.load(Ordering::SeqCst), 0);
    assert!(begin.elapsed() < ms(10));
}

/// Counts down when it is dropped.
struct Counted<'a>(&'a AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn ours_heeds_its_limit_in_every_form() {
    let few = AtWork::default();
    let each = few.clone();
    let ended: Result<Vec<()>, ringfence::GroupError<String>> = ringfence::fan_out(0..10)
        .limit(3)
        .collect(move |n| {
            let at_work = each.clone().on(n);
            async move {
                at_work.await;
                Ok(())
            }
        })
        .await;
    assert_eq!((ended.map(|all| all.len()).ok(), few.most()), (Some(10), 3));
}
