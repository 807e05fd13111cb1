//! Context: what a task inherits and what it cannot leak.

use std::{
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use ringfence::{Deadline, Ended, Observer, Scope, TaskGroup, TaskInfo, scope, token};
use tokio::task::yield_now;

use crate::{
    group::{Text, turns},
    support::{self, Log, caught, every_runtime, single_thread},
};

/// A deadline so many hours from now: told apart by the hour.
fn hours(count: u64) -> Deadline {
    Deadline::after(Duration::from_secs(count * 3600))
}

/// The path of names here, read off the error of a scope that has no name of its own.
async fn own_path() -> String {
    let failed = scope(async |_| Err::<(), _>("read the path".to_owned())).await;
    let error = failed.expect_err("it fails on purpose");
    error.group().unwrap_or("none").to_owned()
}

#[test]
fn a_child_and_a_grandchild_read_what_they_inherit() {
    every_runtime(async || {
        let deadline = hours(1);
        let server = Scope::new().name("server").deadline(deadline);
        let work = server.grace(Duration::from_secs(50));
        let result = work
            .run(async |group: &TaskGroup| {
                let child = group.spawn(async move {
                    assert_eq!(Deadline::current(), deadline);
                    assert_eq!(own_path().await, "server");
                    let of_child = token();
                    let inner = scope(async |group: &TaskGroup| {
                        let grandchild = group.spawn(async move {
                            assert_eq!(Deadline::current(), deadline);
                            assert_eq!(own_path().await, "server");
                            token().cancelled().await;
                            assert!(of_child.is_cancelled());
                            Ok("both saw the cancel")
                        });
                        Ok(grandchild.await)
                    });
                    Ok(inner.await?)
                });
                turns(10).await;
                group.cancel();
                let seen = child.await;
                assert_eq!(seen, "both saw the cancel");
                Ok(())
            })
            .await;
        let error = result.expect_err("it was cancelled");
        assert!(error.is_cancelled() && error.is_empty(), "{error}");
    });
}

#[test]
fn a_narrower_context_is_seen_below_and_not_above() {
    every_runtime(async || {
        let (wide, narrow) = (hours(2), hours(1));
        let done = Scope::new().deadline(wide).run(async |group: &TaskGroup| {
            let narrowing = group.spawn(async move {
                assert_eq!(Deadline::current(), wide, "before");
                let inner = Scope::new().name("inner").deadline(narrow);
                let below = inner.run(async |group: &TaskGroup| {
                    let below = group.spawn(async { Ok((Deadline::current(), own_path().await)) });
                    Ok(below.await)
                });
                let below = below.await?;
                assert_eq!(below, (narrow, "inner".to_owned()));
                assert_eq!(Deadline::current(), wide, "after");
                Ok(())
            });
            let sibling = group.spawn(async move {
                for _ in 0..20 {
                    assert_eq!(Deadline::current(), wide);
                    assert_eq!(own_path().await, "none");
                    yield_now().await;
                }
                let wider = Scope::new().deadline(hours(3));
                let inside = wider.run(async |_: &TaskGroup| Ok(Deadline::current()));
                assert_eq!(inside.await?, wide, "an inner one can only be earlier");
                Ok(())
            });
            narrowing.await;
            sibling.await;
            assert_eq!(Deadline::current(), wide);
            Ok(())
        });
        done.await.expect("nothing failed");
        assert_eq!(Deadline::current(), Deadline::NEVER);
    });
}

#[test]
fn the_context_is_restored_after_an_error_and_after_a_panic() {
    every_runtime(async || {
        let outer = hours(2);
        let inner = || Scope::new().name("inner").deadline(hours(1));
        let here = async || (Deadline::current(), own_path().await);
        let before = here().await;
        let done = Scope::new()
            .name("outer")
            .deadline(outer)
            .run(async |_: &TaskGroup| {
                let failed = inner().run(async |group| {
                    group.spawn(async { Err::<(), _>("child") });
                    pending::<Result<(), Text>>().await
                });
                assert!(failed.await.is_err());
                assert_eq!(here().await, (outer, "outer".to_owned()));

                let thrown = inner().run(async |_: &TaskGroup| -> Result<(), _> {
                    yield_now().await;
                    panic!("body")
                });
                assert!(caught(thrown).await.is_err());
                assert_eq!(here().await, (outer, "outer".to_owned()));

                let mut dropped = Box::pin(inner().run(async |_: &TaskGroup| {
                    pending::<()>().await;
                    Ok(())
                }));
                assert!(futures::poll!(&mut dropped).is_pending());
                drop(dropped);
                assert_eq!(here().await, (outer, "outer".to_owned()));
                Ok(())
            });
        done.await.expect("nothing failed");
        assert_eq!(here().await, before);
    });
}

#[test]
fn the_context_is_gone_between_polls() {
    single_thread(async || {
        let log = Log::new();
        let plain = log.clone();
        let stranger = support::spawn(async move {
            for _ in 0..10 {
                assert_eq!(Deadline::current(), Deadline::NEVER);
                assert_eq!(own_path().await, "none");
                plain.push("plain");
                yield_now().await;
            }
        });
        let taking_turns = |name: &'static str, deadline: Deadline| {
            let log = log.clone();
            Scope::new()
                .name(name)
                .deadline(deadline)
                .run(async move |group: &TaskGroup| {
                    for _ in 0..2 {
                        let log = log.clone();
                        group.spawn(async move {
                            for _ in 0..10 {
                                assert_eq!(Deadline::current(), deadline);
                                assert_eq!(own_path().await, name);
                                log.push(name);
                                yield_now().await;
                            }
                        });
                    }
                    for _ in 0..10 {
                        assert_eq!(Deadline::current(), deadline);
                        yield_now().await;
                    }
                    Ok(())
                })
        };
        let (one, two) =
            futures::join!(taking_turns("one", hours(1)), taking_turns("two", hours(2)));
        assert!(one.is_ok() && two.is_ok());
        stranger.await.expect("the stranger saw nothing");
        let entries = log.entries();
        let turns = entries.chunk_by(|a, b| a == b).count();
        assert!(turns > 10, "they took turns: {entries:?}");
    });
}

/// Remembers under which names children end.
struct Paths(Log<String>);

impl Observer for Paths {
    fn ended(&self, task: &TaskInfo, _: &Ended) {
        let name = task.name().unwrap_or("none");
        self.0
            .push(format!("{}: {name}", task.group().unwrap_or_default()));
    }
}

#[test]
fn the_name_path_leads_to_the_outermost_named_scope() {
    every_runtime(async || {
        let (paths, failed) = (Log::new(), Arc::new(Mutex::new(String::new())));
        let server = Scope::new().name("server");
        let done =
            server
                .observer(Arc::new(Paths(paths.clone())))
                .run(async |group: &TaskGroup| {
                    let slot = failed.clone();
                    let connection = group.named("conn").spawn(async move {
                        let unnamed = scope(async |_| {
                            let request = Scope::new().name("request");
                            let failed = request.run(async |group| {
                                group
                                    .named("parse")
                                    .spawn(async { Err::<(), _>("syntax".to_owned()) });
                                pending::<Result<(), String>>().await
                            });
                            failed.await.map_err(|error| error.to_string())
                        });
                        let error = unnamed.await.expect_err("the request failed");
                        *slot.lock().expect("no panic") = error.into_first().expect("a failure");
                    });
                    connection.await;
                    Ok(())
                });
        done.await.expect("the connection ended well");
        assert_eq!(
            paths.entries(),
            ["server/conn/request: parse", "server: conn"]
        );
        let shown = failed.lock().expect("no panic").clone();
        assert!(
            shown.starts_with(
                "group `server/conn/request` failed: task `server/conn/request/parse`"
            ),
            "{shown}"
        );
    });
}
