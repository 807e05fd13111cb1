//! Who is slow, late, or holds up a shutdown. Threads are really busy here, until they are found.

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use ringfence::inspect::{Stall, Watchdog, Watching};
use ringfence::{OwnedGroup, Scope, TaskGroup, scope};
use tokio::task::yield_now;

use crate::support::{Count, current_thread, multi_thread, settle, single_thread, until};

type Group = TaskGroup<String>;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[expect(clippy::disallowed_methods, reason = "a thread that is really busy")]
fn block(time: Duration) {
    thread::sleep(time);
}

fn start(watchdog: Watchdog) -> (Watching, Receiver<Stall>) {
    let (tell, told) = channel();
    let watching = watchdog.start(move |stall| drop(tell.send(stall.clone())));
    (watching, told)
}

/// Only what is about this task: other tests run meanwhile.
fn about<'a>(told: &'a Receiver<Stall>, name: &'a str) -> impl Iterator<Item = bool> + 'a {
    told.iter().filter_map(move |stall| match stall {
        Stall::SlowPoll { task, is_over, .. } if task.name() == Some(name) => Some(is_over),
        _ => None,
    })
}

#[test]
fn a_task_that_does_not_come_back_is_named_while_it_lasts_and_when_it_is_over() {
    let (watching, told) = start(Watchdog::new().slow_poll(ms(10)));
    let told = Arc::new(Mutex::new(told));
    current_thread().block_on(async {
        let run = scope(async |group: &Group| {
            let told = told.clone();
            group.named("greedy").spawn(async move {
                // Never awaits, until it was found.
                let told = told.lock().expect("nobody panics");
                assert!(!about(&told, "greedy").next().expect("it is told"));
                block(ms(20)); // it is looked at again, and is no news
            });
            Ok(())
        });
        run.await.expect("nobody fails");
    });
    let told = told.lock().expect("nobody panics");
    assert!(about(&told, "greedy").next().expect("it is told again"));
    drop(watching);
}

#[test]
fn a_runtime_that_wakes_its_tasks_late_is_told_of() {
    for runtime in [current_thread(), multi_thread(1)] {
        runtime.block_on(async {
            let (watching, told) = start(Watchdog::new().lag(ms(5)));
            let run = scope(async |group: &Group| {
                group.spawn(async move {
                    while !told
                        .try_iter()
                        .any(|stall| matches!(stall, Stall::Lag { .. }))
                    {
                        block(ms(20));
                        yield_now().await;
                    }
                });
                Ok(())
            });
            run.await.expect("nobody fails");
            drop(watching);
        });
    }
}

#[test]
fn whoever_holds_up_a_shutdown_is_named() {
    let (watching, told) = start(Watchdog::new().no_progress(ms(10)));
    current_thread().block_on(async {
        let group = OwnedGroup::<String>::with_name("slow to end");
        let (found, wait) = channel::<()>();
        let spawner = group.spawner();
        let begun = Count::new();
        let has_begun = begun.clone();
        spawner.spawn_blocking(move || {
            begun.add();
            let _ = wait.recv();
        });
        until(|| has_begun.get() == 1).await;
        let watcher = thread::spawn(move || {
            let ours = |stall: &Stall| {
                matches!(stall, Stall::NoProgress { group, .. } if group.path.as_deref() == Some("slow to end"))
            };
            let stall = told.iter().find(ours).expect("it is told");
            drop(found);
            if let Stall::NoProgress { lasted, .. } = &stall {
                assert!(*lasted >= ms(10), "not before its time");
            }
            stall.to_string()
        });
        group.shutdown(Duration::ZERO).await;
        let text = watcher.join().expect("no panic");
        assert!(text.starts_with("no progress for "), "{text}");
        assert!(text.contains("`slow to end`: closing") && text.contains("watchdog.rs"), "{text}");
    });
    drop(watching);
}

#[test]
fn a_watchdog_that_is_dropped_tells_nothing_any_more() {
    current_thread().block_on(async {
        let (watching, told) = start(Watchdog::new().slow_poll(ms(1)).lag(ms(1)));
        drop(watching);
        let _before = told.try_iter().count();
        let run = scope(async |group: &Group| {
            group.spawn(async { block(ms(20)) });
            settle().await; // the runtime is late
            settle().await;
            Ok(())
        });
        run.await.expect("nobody fails");
        assert_eq!(told.try_iter().count(), 0);
    });
}

#[test]
fn a_handler_may_throw_and_drop_its_own_watchdog() {
    let own = Arc::new(Mutex::new(None::<Watching>));
    let (tell, told) = channel();
    let mine = own.clone();
    let watching = Watchdog::new().slow_poll(ms(5)).start(move |_| {
        drop(mine.lock().map(|mut own| own.take()));
        let _ = tell.send(());
        panic!("a handler");
    });
    *own.lock().expect("nobody panics") = Some(watching);
    single_thread(async || {
        let run = Scope::new().run(async |group: &Group| {
            group.spawn(async move { told.recv().expect("it is told") });
            Ok(())
        });
        run.await.expect("nobody fails");
    });
}
