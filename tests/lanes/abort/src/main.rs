//! See Cargo.toml.

use std::{
    future::pending,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use ringfence::{
    CancelReason, Cause, Deadline, Outcome, Scope, TaskGroup, root, scope, timeout, token,
};
use tokio::{
    runtime::{Builder, Runtime},
    task::yield_now,
    time::sleep,
};

#[cfg(not(any(panic = "abort", test)))]
compile_error!("this lane is about panic = \"abort\"");

type Group = TaskGroup<String>;
type Done = Result<(), String>;

/// Counts the captures that are alive.
struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, SeqCst);
        Self(count.clone())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

async fn parked(_here: Alive) {
    pending().await
}

fn a_scope_waits_and_yields_values(runtime: &Runtime) {
    let sum = runtime.block_on(scope(async |group: &Group| {
        let (a, b) = (group.spawn(async { Ok(1) }), group.spawn(async { Ok(2) }));
        group.spawn(yield_now());
        group.spawn_background(pending::<()>());
        Ok(a.await + b.await)
    }));
    assert_eq!(sum.expect("nobody fails"), 3);
}

fn the_first_failure_cancels_and_awaits(runtime: &Runtime) {
    let alive = Arc::default();
    let error = runtime.block_on(scope(async |group: &Group| -> Done {
        for _ in 0..10 {
            group.spawn(parked(Alive::new(&alive)));
        }
        group.spawn(async { Err::<(), _>("failed".to_owned()) });
        pending().await
    }));
    assert_eq!(alive.load(SeqCst), 0);
    assert_eq!(
        error
            .expect_err("one fails")
            .into_first()
            .expect("an error"),
        "failed"
    );
}

fn cancels_have_their_reasons(runtime: &Runtime) {
    let alive = Arc::default();
    let error = runtime.block_on(scope(async |group: &Group| -> Done {
        let child = group.spawn(parked(Alive::new(&alive)));
        assert_eq!(
            child.cancel_and_wait().await,
            Outcome::Cancelled(CancelReason::Handle)
        );
        assert_eq!(alive.load(SeqCst), 0);
        group.spawn(parked(Alive::new(&alive)));
        group.cancel();
        pending().await
    }));
    assert_eq!(alive.load(SeqCst), 0);
    assert!(error.expect_err("cancelled").is_cancelled());
}

fn grace_and_deadline_keep_their_times(runtime: &Runtime) {
    let error = runtime.block_on(async {
        let slow = Scope::new()
            .grace(Duration::from_millis(20))
            .deadline(Deadline::after(Duration::from_millis(5)));
        slow.run(async |group: &Group| -> Done {
            group.named("stubborn").spawn(pending::<()>());
            group.spawn(async {
                token().cancelled().await;
                sleep(Duration::from_millis(1)).await;
                Err::<(), _>("in the grace".to_owned())
            });
            Ok(())
        })
        .await
    });
    let error = error.expect_err("late");
    assert_eq!(error.cause(), &Cause::DeadlineExceeded);
    assert_eq!((error.len(), error.forced().len()), (1, 1));
}

fn dropped_scopes_are_adopted(runtime: &Runtime) {
    let alive: Arc<AtomicUsize> = Arc::default();
    let endless = |alive: Arc<AtomicUsize>| async move {
        let never = scope(async |group: &Group| -> Done {
            for _ in 0..10 {
                group.spawn(parked(Alive::new(&alive)));
            }
            pending().await
        });
        assert!(timeout(Duration::ZERO, never).await.is_err());
    };
    runtime.block_on(async {
        let owner = scope(async |group: &Group| -> Done {
            group.spawn(endless(alive.clone()));
            endless(alive.clone()).await;
            Ok(())
        });
        owner.await.expect("nobody fails");
        assert_eq!(alive.load(SeqCst), 0);
        endless(alive.clone()).await;
        root()
            .wait(Duration::from_secs(10))
            .await
            .expect("all gone");
        assert_eq!(alive.load(SeqCst), 0);
    });
}

fn a_runtime_that_goes_away_is_an_outcome(mut make: impl FnMut() -> Runtime) {
    let alive = Arc::default();
    let (gone, other) = (make(), make());
    let mut orphaned = Box::pin(scope(async |group: &Group| -> Done {
        group.spawn(parked(Alive::new(&alive)));
        pending().await
    }));
    gone.block_on(async {
        tokio::select! {
            biased;
            _ = &mut orphaned => unreachable!("it is endless"),
            () = yield_now() => {}
        }
    });
    drop(gone);
    let error = other.block_on(orphaned).expect_err("its runtime is gone");
    assert_eq!(error.cause(), &Cause::Cancelled(CancelReason::RuntimeGone));
    assert_eq!(alive.load(SeqCst), 0);
}

fn main() {
    let shapes: [fn() -> Runtime; 3] = [
        || {
            Builder::new_current_thread()
                .enable_all()
                .start_paused(true)
                .build()
                .expect("a runtime")
        },
        || {
            Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .expect("a runtime")
        },
        || {
            Builder::new_multi_thread()
                .worker_threads(4)
                .enable_all()
                .build()
                .expect("a runtime")
        },
    ];
    if std::env::args().any(|argument| argument == "panic") {
        let ended = shapes[2]().block_on(scope(async |group: &Group| -> Done {
            group.spawn(async { panic!("the only message") });
            pending().await
        }));
        unreachable!("the process lives: {ended:?}");
    }
    let ended = Command::new(std::env::current_exe().expect("this program"))
        .arg("panic")
        .output()
        .expect("this program, once more");
    let text = String::from_utf8_lossy(&ended.stderr);
    assert!(
        !ended.status.success() && text.contains("the only message"),
        "{text}"
    );
    for make in shapes {
        let runtime = make();
        a_scope_waits_and_yields_values(&runtime);
        the_first_failure_cancels_and_awaits(&runtime);
        cancels_have_their_reasons(&runtime);
        grace_and_deadline_keep_their_times(&runtime);
        dropped_scopes_are_adopted(&runtime);
        a_runtime_that_goes_away_is_an_outcome(make);
    }
    println!("held");
}
