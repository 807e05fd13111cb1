use std::{
    env, future,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use tokio::task::JoinSet;
use tokio_graceful_shutdown::{
    SubsystemBuilder, SubsystemHandle, Toplevel, errors::GracefulShutdownError,
};
use tokio_util::task::TaskTracker;

/// Counts down when it is dropped.
struct Alive(Arc<AtomicUsize>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn join_set_is_dropped_before_its_tasks_are() {
    let alive = Arc::new(AtomicUsize::new(1));
    let child = Alive(Arc::clone(&alive));
    let mut set = JoinSet::new();
    set.spawn(async move {
        let _child = child;
        future::pending::<()>().await;
    });
    tokio::task::yield_now().await;
    drop(set);
    assert_eq!(alive.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn join_set_keeps_what_nobody_takes_and_gives_panics_as_errors() {
    let mut set = JoinSet::new();
    for n in 0..10 {
        set.spawn(async move { assert_ne!(n, 0) });
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(set.len(), 10, "all have ended, and all are kept");
    assert!(
        set.join_next()
            .await
            .expect("ten")
            .expect_err("a panic")
            .is_panic()
    );
}

/// All handles are ready. A turn may take 128 of them; the rest are asked, and asked again.
#[tokio::test]
async fn futures_unordered_asks_each_handle_the_more_often_the_more_there_are() {
    let mut asked = Vec::new();
    for n in [500, 8_000] {
        let polls = AtomicUsize::new(0);
        let mut set = FuturesUnordered::new();
        for _ in 0..n {
            let (mut handle, polls) = (tokio::spawn(async {}), &polls);
            set.push(future::poll_fn(move |cx| {
                polls.fetch_add(1, Ordering::SeqCst);
                handle.poll_unpin(cx)
            }));
        }
        for _ in 0..n {
            tokio::task::yield_now().await; // until all have ended
        }
        while set.next().await.is_some() {}
        asked.push(polls.load(Ordering::SeqCst) / n);
    }
    assert!(asked[0] < 5 && asked[1] > 20, "{asked:?}");
}

#[tokio::test]
async fn task_tracker_takes_tasks_after_its_end_and_loses_panics() {
    let tracker = TaskTracker::new();
    tracker.close();
    tracker.wait().await;
    assert_eq!(tracker.spawn(async { 7 }).await.ok(), Some(7));
    drop(tracker.spawn(async { panic!("nobody hears this") }));
    tracker.wait().await;
}

#[tokio::test]
async fn task_tracker_that_is_dropped_stops_nobody() {
    let done = Arc::new(AtomicUsize::new(0));
    let inner = Arc::clone(&done);
    let tracker = TaskTracker::new();
    drop(tracker.spawn(async move {
        tokio::task::yield_now().await;
        inner.store(1, Ordering::SeqCst);
    }));
    drop(tracker);
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(done.load(Ordering::SeqCst), 1);
}

/// The panic of a child poisons a lock that a destructor unwraps: tried in a process of its own.
#[test]
fn moro_ends_the_process_when_a_child_panics() {
    const MARK: &str = "RINGFENCE_PEERS_MORO";
    if env::var_os(MARK).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        let _ = runtime.block_on(runtime.spawn(async {
            let ended: Result<(), ()> = moro::async_scope!(|scope| {
                scope.spawn(async { panic!("a child") });
                future::pending().await
            })
            .await;
            ended
        }));
        return;
    }
    let ended = Command::new(env::current_exe().expect("this program"))
        .args([
            "--exact",
            "tasks::moro_ends_the_process_when_a_child_panics",
        ])
        .env(MARK, "1")
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(
        !ended.status.success() && said.contains("panic in a destructor"),
        "{said}"
    );
}

#[tokio::test]
async fn moro_is_ended_by_a_call_with_a_value() {
    let ended: Result<(), &str> = moro::async_scope!(|scope| {
        scope.spawn(async { scope.terminate::<()>(Err("enough")).await });
        future::pending().await
    })
    .await;
    assert_eq!(ended, Err("enough"));
}

/// A task of the same runtime stands still meanwhile: the thread is taken.
#[test]
fn async_scoped_lets_parallel_children_borrow_and_blocks_the_thread() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .expect("a runtime");
    let lent = String::from("lent");
    let lengths = runtime.block_on(async {
        let begin = std::time::Instant::now();
        let mut scope = std::pin::pin!(async {
            async_scoped::TokioScope::scope_and_block(|scope| {
                for _ in 0..2 {
                    scope.spawn(async {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        lent.len()
                    });
                }
            })
        });
        let std::task::Poll::Ready(((), ended)) = crate::poll(scope.as_mut()) else {
            panic!("it would have waited without blocking");
        };
        assert!(
            begin.elapsed() >= Duration::from_millis(20),
            "one poll, and it is over"
        );
        ended
    });
    let lengths: Vec<usize> = lengths
        .into_iter()
        .map(|ended| ended.expect("no panic"))
        .collect();
    assert_eq!(lengths, [4, 4]);
}

#[tokio::test]
async fn deadpool_has_its_object_back_when_the_holder_is_cancelled() {
    let pool = deadpool::unmanaged::Pool::from(vec![1]);
    let held = pool.get().await.expect("one is free");
    drop(async move {
        let _held = held;
        future::pending::<()>().await;
    });
    assert_eq!(pool.status().available, 1);
}

#[tokio::test(start_paused = true)]
async fn tokio_graceful_shutdown_comes_back_before_what_hangs_is_gone() {
    let alive = Arc::new(AtomicUsize::new(1));
    let part = Alive(Arc::clone(&alive));
    let ended = Toplevel::new(async move |system: &mut SubsystemHandle| {
        let hangs = async move |_: &mut SubsystemHandle| {
            let _part = part;
            future::pending::<Result<(), std::io::Error>>().await
        };
        system.start(SubsystemBuilder::new("hangs", hangs));
        tokio::task::yield_now().await;
        system.request_shutdown();
    })
    .handle_shutdown_requests(Duration::from_secs(1))
    .await;
    assert!(matches!(
        ended,
        Err(GracefulShutdownError::ShutdownTimeout(_))
    ));
    assert_eq!(alive.load(Ordering::SeqCst), 1);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(alive.load(Ordering::SeqCst), 0, "it was told to end");
}
