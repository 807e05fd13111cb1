//! What holds under `panic = "abort"`: everything, but that a panic ends the process.

use std::{
    env,
    future::pending,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ringfence::{Cause, GroupError, Scope, TaskGroup, root, scope, timeout};
use tokio::runtime::Builder;

type Failed<T> = Result<T, GroupError<String>>;

/// Counts those alive.
struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn park(guard: Alive) -> Result<(), String> {
    let _guard = guard;
    pending().await
}

async fn a_scope_waits_and_yields() {
    let sum: Failed<u32> = scope(async |group: &TaskGroup<String>| {
        let a = group.spawn(async { Ok(1) });
        let b = group.spawn(async { Ok(2) });
        Ok(a.await + b.await)
    })
    .await;
    assert_eq!(sum.ok(), Some(3));
}

async fn a_failure_drops_the_others_first() {
    let alive = Arc::default();
    let failed: Failed<()> = scope(async |group: &TaskGroup<String>| {
        for _ in 0..100 {
            group.spawn(park(Alive::new(&alive)));
        }
        group.spawn(async { Err::<(), _>("enough".to_owned()) });
        Ok(())
    })
    .await;
    assert_eq!(alive.load(Ordering::SeqCst), 0);
    let error = failed.expect_err("a child failed");
    assert_eq!(error.first().map(String::as_str), Some("enough"));
}

async fn a_grace_signals_first() {
    let done: Failed<()> = Scope::new()
        .grace(Duration::from_secs(60))
        .run(async |group: &TaskGroup<String>| {
            group.spawn(async {
                ringfence::token().cancelled().await;
                Ok(())
            });
            group.cancel();
            Ok(())
        })
        .await;
    let error = done.expect_err("cancelled");
    assert!(matches!(error.cause(), Cause::Cancelled(_)));
    assert!(error.forced().is_empty());
}

async fn a_dropped_scope_is_adopted() {
    let alive: Arc<AtomicUsize> = Arc::default();
    let work = scope(async |group: &TaskGroup<String>| {
        for _ in 0..100 {
            group.spawn(park(Alive::new(&alive)));
        }
        pending::<Result<(), String>>().await
    });
    assert!(timeout(Duration::from_millis(5), work).await.is_err());
    root()
        .wait(Duration::from_secs(60))
        .await
        .expect("nothing is left");
    assert_eq!(alive.load(Ordering::SeqCst), 0);
}

async fn all() {
    a_scope_waits_and_yields().await;
    a_failure_drops_the_others_first().await;
    a_grace_signals_first().await;
    a_dropped_scope_is_adopted().await;
}

async fn panicking() {
    let _never: Failed<()> = scope(async |group: &TaskGroup<String>| {
        group.spawn(async { panic!("the last words") });
        Ok(())
    })
    .await;
}

fn main() {
    let current_thread = Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    if env::args().nth(1).is_some() {
        current_thread.block_on(panicking());
        return;
    }
    current_thread.block_on(all());
    for workers in [1, 2, 4] {
        Builder::new_multi_thread()
            .worker_threads(workers)
            .enable_all()
            .build()
            .expect("a runtime")
            .block_on(all());
    }

    let child = Command::new(env::current_exe().expect("our own path"))
        .arg("panic")
        .output()
        .expect("ourselves as a child");
    assert_eq!(
        child.status.code(),
        None,
        "ended by a signal, not by a return: {child:?}"
    );
    let words = String::from_utf8_lossy(&child.stderr);
    assert!(words.contains("the last words"), "{words}");
    println!("held, on four runtimes; and the panic ended its process with its message");
}
