//! Shields: a section that runs to its end although its task is cancelled, within a bound.

use std::{
    future::{Future, pending, poll_fn},
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use ringfence::{
    BorrowGroup, CancelReason, Deadline, GroupError, OwnedGroup, Ready, Scope, TaskGroup,
    borrow_scope, root, scope, shield, timeout, token,
};
use tokio::{
    sync::oneshot,
    task::yield_now,
    time::{Instant, advance, sleep},
};

use crate::support::{
    Count, Log, OnDrop, caught, current_thread, every_runtime_in_a_task, paused, settle,
};

type Group = TaskGroup<String>;
type Borrowing<'env> = BorrowGroup<'env, String>;
type Done = Result<(), String>;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Runs a child in a scope that is cancelled after 5 ms; tells how long the scope took, and what it said.
async fn cancelled_at_5<F>(run: Scope, child: F) -> (Duration, GroupError<String>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let began = Instant::now();
    let result = run.run(async |group: &Group| -> Done {
        group.spawn(child);
        sleep(ms(5)).await;
        group.cancel();
        Ok(())
    });
    let error = result.await.expect_err("cancelled");
    (began.elapsed(), error)
}

/// Writes down what it gets to.
struct Steps(Log<&'static str>);

impl Steps {
    fn new() -> (Self, Log<&'static str>) {
        let log = Log::new();
        (Self(log.clone()), log)
    }

    async fn slow(&self, time: u64, name: &'static str) {
        sleep(ms(time)).await;
        self.0.push(name);
    }
}

#[test]
fn a_shielded_section_runs_to_its_end_and_the_next_await_does_not() {
    paused(async || {
        let (steps, log) = Steps::new();
        let child = async move {
            shield(ms(100), async {
                steps.slow(10, "inside").await;
                steps.slow(10, "still inside").await;
            })
            .await;
            steps.slow(1, "after").await;
        };
        let (took, error) = cancelled_at_5(Scope::new(), child).await;
        assert_eq!(log.entries(), ["inside", "still inside"]);
        assert_eq!(took, ms(20));
        assert!(error.forced().is_empty(), "{error:?}");
    });
}

#[test]
fn a_shielded_section_yields_its_value() {
    every_runtime_in_a_task(|| async {
        assert_eq!(
            shield(ms(1), async {
                yield_now().await;
                7
            })
            .await,
            7
        );
        let inside = scope(async |_: &Group| Ok(shield(ms(1), async { 8 }).await));
        assert_eq!(inside.await.expect("nobody fails"), 8);
    });
}

#[test]
fn the_bound_counts_from_the_force() {
    paused(async || {
        let child = async { shield(ms(100), pending::<()>()).await };
        let (took, _) = cancelled_at_5(Scope::new(), child).await;
        assert_eq!(took, ms(105));
    });
}

#[test]
fn where_no_time_can_be_kept_a_section_ends_with_the_force() {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime").block_on(async {
        let result = scope(async |group: &Group| -> Done {
            group
                .named("timeless")
                .spawn(shield(ms(100), pending::<()>()));
            yield_now().await;
            group.cancel();
            Ok(())
        });
        let error = result.await.expect_err("cancelled");
        assert_eq!(error.forced()[0].name(), Some("timeless"));
        assert!(error.is_empty(), "nobody panicked");
    });
}

#[test]
fn a_section_that_nobody_polls_any_more_has_its_bound_all_the_same() {
    paused(async || {
        let child = async {
            let mut section = pin!(shield(ms(100), pending::<()>()));
            assert!(futures::poll!(section.as_mut()).is_pending());
            pending::<()>().await;
        };
        let (took, error) = cancelled_at_5(Scope::new(), child).await;
        assert_eq!((took, error.forced().len()), (ms(105), 1));
        let inside = async {
            let mut scoped = pin!(scope(async |_: &Group| {
                shield(ms(100), pending::<()>()).await;
                Ok(())
            }));
            assert!(futures::poll!(scoped.as_mut()).is_pending());
            pending::<()>().await;
        };
        let (took, error) = cancelled_at_5(Scope::new(), inside).await;
        assert_eq!((took, error.forced().len()), (ms(105), 1));
        // The task around is not held up either, when its body has outlasted the bound and the section is kept elsewhere.
        let kept = Arc::new(Mutex::new(None));
        let (elsewhere, gone) = (kept.clone(), Log::new());
        let (began, log) = (Instant::now(), gone.clone());
        let inside = async move {
            let _gone = OnDrop::new(move || log.push(began.elapsed()));
            let inner = scope(async |group: &Group| -> Done {
                let mut section = Box::pin(shield(ms(30), pending::<()>()));
                assert!(futures::poll!(section.as_mut()).is_pending());
                *elsewhere.lock().unwrap() = Some(section);
                group.spawn(shield(ms(500), sleep(ms(200))));
                yield_now().await;
                group.cancel();
                pending().await
            });
            drop(inner.await);
        };
        let (took, _) = cancelled_at_5(Scope::new(), inside).await;
        assert_eq!((gone.entries(), took), (vec![ms(30)], ms(200)));
        drop(kept);
    });
}

#[test]
fn sections_one_after_another_do_not_outlast_the_longest_bound() {
    paused(async || {
        let sections = || async {
            loop {
                shield(ms(100), sleep(ms(30))).await;
            }
        };
        let (took, error) = cancelled_at_5(Scope::new(), sections()).await;
        assert_eq!((took, error.forced().len()), (ms(105), 1));
        let scopes = async {
            loop {
                let section = async |_: &Group| {
                    shield(ms(100), sleep(ms(30))).await;
                    Ok(())
                };
                let _cancelled = scope(section).await;
            }
        };
        assert_eq!(cancelled_at_5(Scope::new(), scopes).await.0, ms(105));
        let alone = scope(async |group: &Group| {
            let child = group.spawn(sections());
            sleep(ms(5)).await;
            let began = Instant::now();
            child.cancel_and_wait().await;
            Ok(began.elapsed())
        });
        assert_eq!(alone.await.expect("nobody fails"), ms(100));
        // The bound of one that is over counts no more, and a later one has its own, whatever the one before it.
        for (first, second, expected) in [
            ((1000, 1), (10, 500), 15),
            ((1000, 8), (10, 500), 15),
            ((10, 8), (100, 50), 58),
            ((10, 8), (100, 500), 105),
        ] {
            let both = async move {
                shield(ms(first.0), sleep(ms(first.1))).await;
                shield(ms(second.0), sleep(ms(second.1))).await;
                pending::<()>().await;
            };
            let (took, error) = cancelled_at_5(Scope::new(), both).await;
            let is_overrun = expected != 58;
            assert_eq!(
                (took, error.forced().len()),
                (ms(expected), usize::from(is_overrun))
            );
        }
    });
}

#[test]
fn with_a_grace_the_bound_counts_from_its_end() {
    paused(async || {
        let child = async { shield(ms(100), pending::<()>()).await };
        let (took, error) = cancelled_at_5(Scope::new().grace(ms(50)), child).await;
        assert_eq!(took, ms(155));
        assert_eq!(error.forced().len(), 1);
    });
}

#[test]
fn a_section_that_is_overrun_is_named() {
    paused(async || {
        let result = scope(async |group: &Group| -> Done {
            group.named("commit").spawn(shield(ms(10), pending::<()>()));
            yield_now().await;
            group.cancel();
            Ok(())
        });
        let error = result.await.expect_err("cancelled");
        let names: Vec<_> = error.forced().iter().map(|forced| forced.name()).collect();
        assert_eq!(names, [Some("commit")]);
    });
}

#[test]
fn a_bound_of_zero_ends_with_the_force() {
    paused(async || {
        let child = async { shield(Duration::ZERO, pending::<()>()).await };
        let (took, error) = cancelled_at_5(Scope::new(), child).await;
        assert_eq!(took, ms(5));
        assert_eq!(error.forced().len(), 1);
        // Not with the next tick of the clock.
        let began = Instant::now();
        let result = scope(async |group: &Group| -> Done {
            group.spawn(shield(Duration::ZERO, pending::<()>()));
            settle().await;
            advance(Duration::from_micros(500)).await;
            group.cancel();
            Ok(())
        });
        assert_eq!(result.await.expect_err("cancelled").forced().len(), 1);
        assert_eq!(began.elapsed(), Duration::from_micros(500));
    });
}

#[test]
fn a_bound_that_no_clock_can_hold_never_passes() {
    paused(async || {
        let (steps, log) = Steps::new();
        let child = async move {
            shield(Duration::MAX, steps.slow(1_000_000, "inside")).await;
        };
        let (took, _) = cancelled_at_5(Scope::new(), child).await;
        assert_eq!((took, log.entries()), (ms(1_000_000), vec!["inside"]));
    });
}

#[test]
fn the_body_can_be_shielded() {
    paused(async || {
        let (steps, log) = Steps::new();
        let began = Instant::now();
        let result = scope(async |group: &Group| -> Done {
            group.spawn(async {
                sleep(ms(5)).await;
                Err::<(), _>("a child failed".to_owned())
            });
            shield(ms(100), steps.slow(20, "inside")).await;
            steps.slow(1, "after").await;
            Ok(())
        });
        assert_eq!(result.await.expect_err("it failed").len(), 1);
        assert_eq!((log.entries(), began.elapsed()), (vec!["inside"], ms(20)));
    });
}

#[test]
fn a_body_that_is_overrun_is_named() {
    paused(async || {
        let began = Instant::now();
        let result = scope(async |group: &Group| -> Done {
            group.cancel();
            shield(ms(30), pending::<()>()).await;
            Ok(())
        });
        let error = result.await.expect_err("cancelled");
        assert!(matches!(error.forced(), [body] if body.task.is_none()));
        assert_eq!(began.elapsed(), ms(30));
    });
}

#[test]
fn children_of_a_shielded_body_are_cancelled_at_once() {
    paused(async || {
        let log = Log::new();
        let began = Instant::now();
        let result = scope(async |group: &Group| -> Done {
            let gone = log.on_drop("child");
            group.spawn(async move {
                let _gone = gone;
                pending::<()>().await;
            });
            settle().await;
            group.cancel();
            shield(ms(100), async {
                sleep(ms(10)).await;
                log.push("body");
            })
            .await;
            Ok(())
        });
        assert!(result.await.expect_err("cancelled").is_cancelled());
        assert_eq!(log.entries(), ["child", "body"]);
        assert_eq!(began.elapsed(), ms(10));
    });
}

#[test]
fn a_shield_in_the_body_of_a_scope_holds_against_the_cancel_of_the_task_around_it() {
    paused(async || {
        let (steps, log) = Steps::new();
        let child = async move {
            let inner = scope(async |_: &Group| -> Done {
                let innermost = scope(async |_: &Group| -> Done {
                    shield(ms(100), steps.slow(20, "inside")).await;
                    steps.slow(1, "after").await;
                    Ok(())
                });
                drop(innermost.await);
                Ok(())
            });
            drop(inner.await);
        };
        let (took, error) = cancelled_at_5(Scope::new(), child).await;
        assert_eq!((log.entries(), took), (vec!["inside"], ms(20)));
        assert!(error.forced().is_empty(), "{error:?}");
        // A section in a section, with a longer bound: when both are over, so is the shield of the task around.
        let (steps, log) = Steps::new();
        let child = async move {
            let inner = scope(async |_: &Group| -> Done {
                shield(ms(100), async {
                    sleep(ms(2)).await;
                    shield(ms(200), steps.slow(20, "inside")).await;
                })
                .await;
                pending().await
            });
            drop(inner.await);
        };
        let (took, error) = cancelled_at_5(Scope::new(), child).await;
        assert_eq!((log.entries(), took), (vec!["inside"], ms(22)));
        assert!(error.forced().is_empty(), "{error:?}");
    });
}

#[test]
fn a_shield_in_the_body_of_a_scope_is_bounded_from_the_force_of_the_task_around_it() {
    paused(async || {
        let child = async move {
            let inner = scope(async |_: &Group| -> Done {
                shield(ms(30), pending::<()>()).await;
                Ok(())
            });
            drop(inner.await);
        };
        let (took, error) = cancelled_at_5(Scope::new(), child).await;
        assert_eq!(took, ms(35));
        assert_eq!(error.forced().len(), 1, "{error:?}");
        // The body inside was forced before, so that its section is overrun before; beside another one, that is not the task's end.
        for (beside, expected) in [(None, (30, 1)), (Some(20), (30, 1)), (Some(50), (50, 0))] {
            let child = async move {
                let inner = scope(async |group: &Group| -> Done {
                    group.cancel();
                    shield(ms(30), pending::<()>()).await;
                    Ok(())
                });
                let other = async {
                    if let Some(time) = beside {
                        shield(ms(1000), sleep(ms(time))).await;
                    }
                };
                let (_overrun, ()) = tokio::join!(inner, other);
                pending::<()>().await;
            };
            let (took, error) = cancelled_at_5(Scope::new(), child).await;
            assert_eq!((took, error.forced().len()), (ms(expected.0), expected.1));
        }
    });
}

#[test]
fn a_shield_in_a_child_of_a_scope_inside_holds_against_the_cancel_outside() {
    paused(async || {
        let (steps, log) = Steps::new();
        let child = async move {
            let inner = scope(async |group: &Group| -> Done {
                group.spawn(async move { shield(ms(100), steps.slow(20, "inside")).await });
                Ok(())
            });
            drop(inner.await);
        };
        let (took, _) = cancelled_at_5(Scope::new(), child).await;
        assert_eq!((log.entries(), took), (vec!["inside"], ms(20)));
    });
}

#[test]
fn the_cancel_of_all_children_does_not_touch_a_shield_in_the_body() {
    paused(async || {
        let (steps, log) = Steps::new();
        let result = scope(async |group: &Group| -> Done {
            group.spawn(pending::<()>());
            group.cancel_children();
            shield(ms(5), async {
                steps.slow(50, "inside").await;
                group.cancel();
                steps.slow(3, "within the bound").await;
            })
            .await;
            Ok(())
        });
        assert!(result.await.expect_err("cancelled").forced().is_empty());
        assert_eq!(log.entries(), ["inside", "within the bound"]);
    });
}

#[test]
fn a_child_cancelled_through_its_handle_finishes_its_section() {
    paused(async || {
        let (steps, log) = Steps::new();
        let began = Instant::now();
        let result = scope(async |group: &Group| -> Done {
            let handle = group.spawn(async move {
                shield(ms(100), steps.slow(20, "inside")).await;
                pending::<()>().await;
            });
            settle().await;
            assert!(handle.cancel_and_wait().await.is_cancelled());
            Ok(())
        });
        result.await.expect("one child was cancelled alone");
        assert_eq!((log.entries(), began.elapsed()), (vec!["inside"], ms(20)));
    });
}

#[test]
fn inside_a_shield_inside_a_shield_and_after_the_inner_one_is_shielded() {
    paused(async || {
        let (steps, log) = Steps::new();
        let child = async move {
            shield(ms(100), async {
                shield(ms(100), steps.slow(10, "inner")).await;
                assert!(!token().is_cancelled());
                steps.slow(10, "outer").await;
            })
            .await;
            steps.slow(1, "after").await;
        };
        let (took, _) = cancelled_at_5(Scope::new(), child).await;
        assert_eq!((log.entries(), took), (vec!["inner", "outer"], ms(20)));
    });
}

#[test]
fn the_longer_bound_of_nested_shields_counts() {
    paused(async || {
        let (steps, log) = Steps::new();
        let child = async move {
            shield(ms(100), shield(ms(10), steps.slow(30, "inner"))).await;
        };
        let (took, error) = cancelled_at_5(Scope::new(), child).await;
        assert_eq!((log.entries(), took), (vec!["inner"], ms(30)));
        assert!(error.forced().is_empty(), "{error:?}");
    });
}

#[test]
fn what_a_section_sets_itself_still_stops_it() {
    paused(async || {
        let log = Log::new();
        let inside = log.clone();
        let child = async move {
            shield(ms(1000), async {
                let late = timeout(ms(10), pending::<()>()).await;
                assert!(late.is_err());
                inside.push(Instant::now());
                let own = scope(async |group: &Group| -> Done {
                    group.cancel();
                    pending().await
                });
                assert!(own.await.expect_err("cancelled").is_cancelled());
            })
            .await;
        };
        let began = Instant::now();
        let (took, _) = cancelled_at_5(Scope::new(), child).await;
        assert_eq!((log.entries(), took), (vec![began + ms(10)], ms(10)));
    });
}

#[test]
fn a_shield_does_not_hold_against_the_drop_of_its_own_future() {
    paused(async || {
        let began = Instant::now();
        let result = scope(async |group: &Group| -> Done {
            group.spawn(async {
                let section = shield(ms(1000), pending::<()>());
                assert!(timeout(ms(5), section).await.is_err());
            });
            Ok(())
        });
        result.await.expect("nobody is cancelled");
        assert_eq!(began.elapsed(), ms(5));
    });
}

#[test]
fn what_is_not_in_the_section_is_cancelled_when_it_ends() {
    paused(async || {
        // The other branch of a `select!` ends first: the section is dropped, and so the task is not shielded any more.
        let child = async {
            tokio::select! {
                () = shield(ms(1000), pending::<()>()) => {}
                () = sleep(ms(20)) => {}
            }
            pending::<()>().await;
        };
        let (took, error) = cancelled_at_5(Scope::new(), child).await;
        assert_eq!(took, ms(20));
        assert!(error.forced().is_empty());
    });
}

#[test]
fn the_token_is_silent_inside_and_not_in_another_branch_of_the_task() {
    paused(async || {
        let log = Log::new();
        let (inside, beside) = (log.clone(), log.clone());
        let child = async move {
            let section = shield(ms(100), async move {
                let fires = token();
                sleep(ms(10)).await;
                inside.push(("inside", token().is_cancelled()));
                inside.push(("kept", fires.is_cancelled()));
            });
            let other = async move {
                sleep(ms(9)).await;
                beside.push(("beside", token().is_cancelled()));
            };
            tokio::join!(section, other);
        };
        cancelled_at_5(Scope::new(), child).await;
        assert_eq!(
            log.entries(),
            [("beside", true), ("inside", false), ("kept", false)]
        );
    });
}

#[test]
fn who_waits_for_the_token_inside_is_not_woken() {
    paused(async || {
        let log = Log::new();
        let inside = log.clone();
        let child = async move {
            shield(ms(100), async {
                let late = timeout(ms(20), token().cancelled()).await;
                inside.push(late.is_err());
            })
            .await;
        };
        cancelled_at_5(Scope::new(), child).await;
        assert_eq!(log.entries(), [true]);
    });
}

#[test]
fn the_cancel_is_seen_from_outside_and_by_the_task_after_the_section() {
    paused(async || {
        let log = Log::new();
        let run = Scope::new()
            .grace(ms(100))
            .run(async |group: &Group| -> Done {
                let inside = log.clone();
                group.spawn(async move {
                    shield(ms(100), async {
                        sleep(ms(10)).await;
                        inside.push(token().is_cancelled());
                    })
                    .await;
                    inside.push(token().is_cancelled());
                });
                group.cancel();
                assert!(group.is_cancelled());
                Ok(())
            });
        assert!(run.await.expect_err("cancelled").forced().is_empty());
        assert_eq!(log.entries(), [false, true]);
    });
}

#[test]
fn a_scope_opened_inside_starts_uncancelled_and_its_own_cancel_works() {
    paused(async || {
        let log = Log::new();
        let inside = log.clone();
        let child = async move {
            shield(ms(1000), async {
                sleep(ms(10)).await; // cancelled by now
                let inner = scope(async |group: &Group| {
                    let silent = group.spawn(async { Ok(token().is_cancelled()) }).await;
                    let handle = group.spawn(pending::<()>());
                    sleep(ms(10)).await;
                    handle.cancel_and_wait().await;
                    Ok((silent, token().is_cancelled()))
                });
                inside.push(inner.await.expect("it is not cancelled"));
            })
            .await;
        };
        let (took, _) = cancelled_at_5(Scope::new(), child).await;
        assert_eq!((log.entries(), took), (vec![(false, false)], ms(20)));
    });
}

#[test]
fn a_child_spawned_inside_a_section_is_not_shielded() {
    paused(async || {
        let began = Instant::now();
        let log = Log::new();
        let result = scope(async |group: &Group| -> Done {
            let gone = log.on_drop("child");
            let child = async move {
                let _gone = gone;
                pending::<()>().await;
            };
            shield(ms(1000), async { drop(group.spawn(child)) }).await;
            sleep(ms(5)).await;
            group.cancel();
            Ok(())
        });
        assert!(result.await.expect_err("cancelled").is_cancelled());
        assert_eq!((log.entries(), began.elapsed()), (vec!["child"], ms(5)));
    });
}

#[test]
fn deadlines_from_outside_are_ignored_inside() {
    paused(async || {
        let log = Log::new();
        let inside = log.clone();
        let child = async move {
            let outside = Deadline::current().is_past();
            shield(ms(1000), async {
                sleep(ms(20)).await;
                let mine = Deadline::current();
                let opened = scope(async |_: &Group| Ok(Deadline::current()));
                let opened = opened.await.expect("it is in time");
                inside.push((outside, mine, opened));
                let own = Scope::new().deadline(Deadline::after(ms(10)));
                let late = own.run(async |_: &Group| pending::<Done>().await);
                assert!(late.await.expect_err("late").is_deadline_exceeded());
            })
            .await;
        };
        let began = Instant::now();
        let run = Scope::new().deadline(Deadline::after(ms(10)));
        let result = run.run(async |group: &Group| -> Done {
            group.spawn(child);
            Ok(())
        });
        assert!(result.await.expect_err("late").is_deadline_exceeded());
        let never = Deadline::NEVER;
        assert_eq!(log.entries(), [(false, never, never)]);
        assert_eq!(began.elapsed(), ms(30));
    });
}

#[test]
fn cleanup_under_a_shield_after_the_signal_completes_and_the_task_ends_cancelled() {
    paused(async || {
        let (steps, log) = Steps::new();
        let child = async move {
            token().cancelled().await;
            shield(ms(100), async {
                steps.slow(10, "one").await;
                steps.slow(10, "two").await;
            })
            .await;
            pending::<()>().await;
        };
        let (took, error) = cancelled_at_5(Scope::new().grace(ms(15)), child).await;
        assert_eq!((log.entries(), took), (vec!["one", "two"], ms(25)));
        assert_eq!(
            error.forced().len(),
            1,
            "after its section, at its next await"
        );
    });
}

#[test]
fn a_shield_polled_by_an_executor_within_the_task_hears_of_the_force() {
    paused(async || {
        let child = async {
            let mut several = FuturesUnordered::new();
            several.push(shield(ms(30), pending::<()>()));
            several.push(shield(ms(10), pending::<()>()));
            while several.next().await.is_some() {}
        };
        let (took, error) = cancelled_at_5(Scope::new(), child).await;
        assert_eq!(took, ms(35));
        assert_eq!(error.forced().len(), 1);
    });
}

#[test]
fn a_shield_in_a_child_that_is_started_holds_until_it_is_over() {
    paused(async || {
        let (steps, log) = Steps::new();
        let began = Instant::now();
        let result = scope(async |group: &Group| -> Done {
            let spawner = group.spawner();
            group.spawn(async move {
                sleep(ms(5)).await;
                spawner.cancel();
            });
            let started = group.start(|ready: Ready<()>| async move {
                shield(ms(100), steps.slow(20, "inside")).await;
                ready.set(());
                pending::<()>().await;
            });
            drop(started.await);
            pending().await
        });
        assert!(result.await.expect_err("cancelled").is_cancelled());
        assert_eq!((log.entries(), began.elapsed()), (vec!["inside"], ms(20)));
    });
}

#[test]
fn the_children_of_a_dropped_scope_finish_their_sections_and_the_owner_waits() {
    paused(async || {
        let (steps, log) = Steps::new();
        let began = Instant::now();
        let result = scope(async |group: &Group| -> Done {
            group.spawn(async move {
                let inner = scope(async |inner: &Group| -> Done {
                    inner.spawn(async move { shield(ms(100), steps.slow(20, "inside")).await });
                    pending().await
                });
                assert!(timeout(ms(5), inner).await.is_err());
            });
            Ok(())
        });
        result.await.expect("nobody is cancelled");
        assert_eq!((log.entries(), began.elapsed()), (vec!["inside"], ms(20)));
    });
}

#[test]
fn the_children_of_a_dropped_group_finish_their_sections_and_the_root_waits() {
    paused(async || {
        let (steps, log) = Steps::new();
        let group = OwnedGroup::<String>::new();
        group.spawn(async move { shield(ms(100), steps.slow(20, "inside")).await });
        settle().await;
        drop(group);
        root().wait(ms(30)).await.expect("it has a bound");
        assert_eq!(log.entries(), ["inside"]);
    });
}

#[test]
fn a_panic_in_a_section_is_that_of_its_task() {
    paused(async || {
        let result = scope(async |group: &Group| -> Done {
            group.cancel();
            shield(ms(10), async {
                yield_now().await;
                panic!("thrown inside")
            })
            .await
        });
        assert_eq!(
            caught(result).await.expect_err("it throws"),
            "thrown inside"
        );
    });
}

#[test]
fn outside_every_group_a_shield_does_nothing() {
    let runtime = current_thread();
    runtime.block_on(async {
        let (tell, told) = oneshot::channel();
        let section = shield(Duration::ZERO, async move { tell.send(5) });
        section.await.expect("somebody listens");
        assert_eq!(told.await, Ok(5));
        let mut never = pin!(shield(ms(1), pending::<()>()));
        assert!((&mut never).now_or_never().is_none());
    });
    // Nor does it need a runtime.
    assert_eq!(shield(ms(1), async { 6 }).now_or_never(), Some(6));
}

#[test]
fn a_reason_is_the_same_with_a_shield_as_without() {
    paused(async || {
        let result = scope(async |group: &Group| -> Done {
            let handle = group.spawn(async { shield(ms(10), sleep(ms(5))).await });
            settle().await;
            handle.cancel();
            let outcome = handle.outcome().await;
            // The section was all there was: it has completed.
            assert!(outcome.is_completed(), "{outcome:?}");
            let handle = group.spawn(async { shield(ms(1), pending::<()>()).await });
            settle().await;
            handle.cancel();
            let reason = ringfence::Outcome::Cancelled(CancelReason::Handle);
            assert_eq!(handle.outcome().await, reason);
            Ok(())
        });
        result.await.expect("children were cancelled alone");
    });
}

#[test]
fn a_shield_in_a_child_that_borrows_holds_against_the_cancel_of_the_task_around_it() {
    for depth in [1, 2] {
        paused(async || {
            let (steps, log) = Steps::new();
            let child = async move {
                let steps = &steps;
                let innermost = borrow_scope(|group: Borrowing<'_>| async move {
                    group.spawn(async {
                        shield(ms(100), steps.slow(20, "inside")).await;
                        steps.slow(1, "after").await;
                    });
                    group.spawn(steps.slow(50, "beside"));
                    pending::<Result<(), _>>().await
                });
                if depth == 1 {
                    drop(innermost.await);
                } else {
                    let around = borrow_scope(|group: Borrowing<'_>| async move {
                        group.spawn(innermost.map(drop)).await;
                        Ok(())
                    });
                    drop(around.await);
                }
            };
            let (took, error) = cancelled_at_5(Scope::new(), child).await;
            assert_eq!((log.entries(), took), (vec!["inside"], ms(20)));
            assert!(error.forced().is_empty(), "{error:?}");
        });
    }
}

#[test]
fn a_shield_in_a_child_that_borrows_is_bounded_from_the_force_of_the_task_around_it() {
    paused(async || {
        let child = async move {
            let inner = borrow_scope(|group: Borrowing<'_>| async move {
                group.spawn(shield(ms(30), pending::<()>()));
                group.spawn(shield(ms(10), pending::<()>()));
                Ok(())
            });
            drop(inner.await);
        };
        let (took, error) = cancelled_at_5(Scope::new(), child).await;
        assert_eq!(took, ms(35));
        assert_eq!(error.forced().len(), 1, "{error:?}");
        // From that of its own scope where that came first: the task has waited for a section that is overrun all the same.
        let child = async move {
            let inner = borrow_scope(|group: Borrowing<'_>| async move {
                group.spawn(shield(ms(10), pending::<()>()));
                yield_now().await;
                group.cancel();
                Ok(())
            });
            drop(inner.await);
            pending::<()>().await;
        };
        let (took, error) = cancelled_at_5(Scope::new(), child).await;
        assert_eq!(took, ms(10));
        assert_eq!(error.forced().len(), 1, "{error:?}");
    });
}

#[test]
fn a_shield_in_a_child_that_borrows_is_down_when_the_child_is_gone() {
    paused(async || {
        let child = async move {
            let inner = borrow_scope(|group: Borrowing<'_>| async move {
                let shielded = group.spawn(shield(ms(100), pending::<()>()));
                yield_now().await;
                // Its own group's cancel, and a panic or a drop of the section, end it.
                shielded.cancel();
                group.spawn(timeout(ms(1), shield(ms(100), pending::<()>())).map(drop));
                pending::<Result<(), _>>().await
            });
            drop(inner.await);
        };
        let (took, _) = cancelled_at_5(Scope::new(), child).await;
        assert_eq!(
            took,
            ms(100),
            "the bound of the one that was cancelled at once"
        );
    });
}

#[test]
fn a_child_that_borrows_and_is_started_eagerly_can_be_shielded() {
    paused(async || {
        let (steps, log) = Steps::new();
        let child = async move {
            let steps = &steps;
            let inner = borrow_scope(|group: Borrowing<'_>| async move {
                group.spawn_eager(async { shield(ms(100), steps.slow(20, "inside")).await });
                pending::<Result<(), _>>().await
            });
            drop(inner.await);
        };
        let (took, _) = cancelled_at_5(Scope::new(), child).await;
        assert_eq!((log.entries(), took), (vec!["inside"], ms(20)));
    });
}

#[test]
fn a_section_that_waits_for_a_lost_value_finishes_what_else_it_does() {
    paused(async || {
        for grace in [0, 100] {
            let (steps, log) = Steps::new();
            let began = Instant::now();
            let result = Scope::new().grace(ms(grace)).run(async |group: &Group| {
                let fails = group.spawn(async { Err::<(), _>("no".to_owned()) });
                let commit = steps.slow(20, "committed");
                shield(ms(50), async { tokio::join!(fails, commit) }).await;
                unreachable!("there is no such value")
            });
            let result: Result<(), GroupError<String>> = result.await;
            let error = result.expect_err("one failed");
            assert_eq!(error.first().map(String::as_str), Some("no"));
            assert_eq!(log.entries(), ["committed"]);
            assert_eq!(
                began.elapsed(),
                ms(50 + grace),
                "it has its bound, and no more"
            );
            assert_eq!(error.forced().len(), 1, "{error:?}");
        }
    });
}

#[test]
fn a_section_that_is_overrun_in_a_scope_inside_names_nobody_outside() {
    paused(async || {
        let child = async {
            let inside = scope(async |group: &Group| -> Done {
                group.cancel();
                shield(ms(1), pending::<()>()).await;
                Ok(())
            });
            let error = inside.await.expect_err("cancelled");
            assert_eq!(error.forced().len(), 1, "{error:?}");
            pending::<()>().await;
        };
        let (_, error) = cancelled_at_5(Scope::new(), child).await;
        assert!(error.forced().is_empty(), "{error:?}");
    });
}

#[test]
fn a_section_in_a_cancelled_group_is_polled_when_it_is_woken_and_not_otherwise() {
    /// Counts the polls of a future.
    async fn counted<F: Future>(polls: Count, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|cx| {
            polls.add();
            future.as_mut().poll(cx)
        })
        .await
    }
    paused(async || {
        let [scopes, children, sections] = [Count::new(), Count::new(), Count::new()];
        let (child, section) = (children.clone(), sections.clone());
        let child = counted(child, async {
            let inner = scope(async |inner: &Group| -> Done {
                inner.spawn(shield(ms(1000), counted(section, sleep(ms(500)))));
                Ok(())
            });
            drop(inner.await);
        });
        let (took, _) = counted(scopes.clone(), cancelled_at_5(Scope::new(), child)).await;
        assert_eq!((took, sections.get()), (ms(500), 3), "start, force, end");
        let others = (scopes.get(), children.get());
        assert!(others.0 <= 6 && others.1 <= 4, "{others:?}");
    });
}

#[test]
fn the_longest_bound_of_those_who_share_a_task_holds_for_it() {
    paused(async || {
        let log = Log::new();
        let (first, second) = (log.clone(), log.clone());
        let (took, _) = cancelled_at_5(Scope::new(), async move {
            let inner = borrow_scope(async |group: Borrowing<'_>| {
                group.spawn(async {
                    shield(ms(10), sleep(ms(8))).await;
                    first.push(8);
                });
                group.spawn(async {
                    sleep(ms(2)).await;
                    shield(ms(50), sleep(ms(40))).await;
                    second.push(42);
                });
                Ok(())
            });
            drop(inner.await);
        })
        .await;
        assert_eq!((took, log.entries()), (ms(42), vec![8, 42]));
    });
}
