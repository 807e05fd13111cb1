//! Periodic work: when it runs, and when not.

use std::{future::pending, time::Duration};

use ringfence::{
    BoxError, Periodic, Retry, Scope, TaskGroup, scope,
    supervise::{Child, Missed, Run, Supervisor, Tick},
};
use tokio::time::{Instant, sleep};

use crate::support::{Count, Drops, Log, caught, cut_at_every_await, paused};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Runs it for so long in real or virtual time; each run lasts as long as `lasts` says, in turn. Returns when they began.
async fn begins(periodic: Periodic, lasts: &'static [u64], stop: u64) -> Vec<(u64, u64)> {
    let (log, start, handle) = (Log::new(), Instant::now(), periodic.handle());
    let work = {
        let log = log.clone();
        move |tick: Tick| {
            log.push((start.elapsed().as_millis() as u64, tick.missed()));
            let lasts = lasts.get(tick.number() as usize - 1).copied().unwrap_or(0);
            sleep(ms(lasts))
        }
    };
    let (ended, ()) = tokio::join!(periodic.run::<BoxError, _, _>(work), async {
        sleep(ms(stop)).await;
        handle.stop();
    });
    ended.expect("it was stopped");
    log.entries()
}

fn at(times: &[u64]) -> Vec<(u64, u64)> {
    times.iter().map(|time| (*time, 0)).collect()
}

#[test]
fn at_a_rate_runs_begin_on_a_grid_however_long_they_take() {
    paused(async || {
        let began = begins(Periodic::rate(ms(100)), &[30, 70, 100], 450).await;
        assert_eq!(began, at(&[0, 100, 200, 300, 400]));
    });
}

#[test]
fn with_a_delay_runs_begin_so_long_after_the_last_one_ended() {
    paused(async || {
        let began = begins(Periodic::delay(ms(100)), &[30, 150], 450).await;
        assert_eq!(began, at(&[0, 130, 380]));
    });
}

#[test]
fn the_first_run_is_at_once_or_when_it_is_told_to_be() {
    paused(async || {
        let began = begins(Periodic::rate(ms(100)).first_after(ms(30)), &[], 240).await;
        assert_eq!(began, at(&[30, 130, 230]));
        let began = begins(Periodic::delay(ms(100)).first_after(ms(30)), &[5], 240).await;
        assert_eq!(began, at(&[30, 135, 235]));
    });
}

#[test]
fn instants_that_are_missed_are_left_out_and_counted() {
    paused(async || {
        let began = begins(Periodic::rate(ms(100)), &[350], 650).await;
        assert_eq!(began, [(0, 0), (400, 3), (500, 0), (600, 0)]);
    });
}

#[test]
fn instants_that_are_missed_are_made_up_for_one_by_one() {
    paused(async || {
        let rate = Periodic::rate(ms(100)).missed(Missed::Burst);
        let began = begins(rate, &[350, 10, 10], 550).await;
        assert_eq!(began, at(&[0, 350, 360, 370, 400, 500]));
    });
}

#[test]
fn after_a_miss_the_grid_may_begin_anew() {
    paused(async || {
        let rate = Periodic::rate(ms(100)).missed(Missed::Delay);
        let began = begins(rate, &[350], 600).await;
        assert_eq!(began, at(&[0, 350, 450, 550]));
    });
}

#[test]
fn a_trigger_runs_it_now_and_does_not_move_the_grid() {
    paused(async || {
        let periodic = Periodic::rate(ms(100));
        let handle = periodic.handle();
        let (began, ()) = tokio::join!(begins(periodic, &[], 250), async {
            sleep(ms(130)).await;
            handle.trigger();
        });
        assert_eq!(began, at(&[0, 100, 130, 200]));
    });
}

#[test]
fn a_trigger_moves_what_is_counted_from_its_end() {
    paused(async || {
        let periodic = Periodic::delay(ms(100));
        let handle = periodic.handle();
        let (began, ()) = tokio::join!(begins(periodic, &[], 280), async {
            sleep(ms(130)).await;
            handle.trigger();
        });
        assert_eq!(began, at(&[0, 100, 130, 230]));
    });
}

#[test]
fn triggers_during_a_run_make_one_more_right_after_it() {
    paused(async || {
        let periodic = Periodic::rate(ms(100));
        let handle = periodic.handle();
        let (began, ()) = tokio::join!(begins(periodic, &[50], 150), async {
            sleep(ms(10)).await;
            (0..5).for_each(|_| handle.trigger());
        });
        assert_eq!(began, at(&[0, 50, 100]), "never two at a time");
    });
}

#[test]
fn a_tick_tells_its_number_and_whether_somebody_asked_for_it() {
    paused(async || {
        let (log, periodic) = (Log::new(), Periodic::rate(ms(100)));
        let handle = periodic.handle();
        handle.trigger();
        let run = periodic.run(|tick| {
            log.push((tick.number(), tick.is_triggered()));
            let handle = handle.clone();
            async move {
                if tick.number() == 3 {
                    handle.stop();
                }
                Ok::<(), BoxError>(())
            }
        });
        run.await.expect("it was stopped");
        assert_eq!(log.entries(), [(1, true), (2, false), (3, false)]);
    });
}

#[test]
fn a_stop_lets_the_run_finish_that_it_is_in() {
    paused(async || {
        let start = Instant::now();
        let began = begins(Periodic::rate(ms(100)), &[70], 20).await;
        assert_eq!((began, start.elapsed()), (at(&[0]), ms(70)));
        let began = begins(Periodic::rate(ms(100)), &[], 20).await;
        assert_eq!(
            (began, start.elapsed()),
            (at(&[0]), ms(90)),
            "a wait ends at once"
        );
    });
}

#[test]
fn a_cancel_ends_a_wait_at_its_signal_and_lets_a_run_finish() {
    paused(async || {
        for (lasts, ends) in [(0, 130), (60, 160)] {
            let (start, done) = (Instant::now(), Count::new());
            let ended = Scope::new().grace(ms(1000)).run(async |group: &TaskGroup| {
                let done = done.clone();
                group.spawn(Periodic::rate(ms(100)).run(move |_| {
                    let done = done.clone();
                    async move {
                        sleep(ms(lasts)).await;
                        done.add();
                    }
                }));
                sleep(ms(130)).await;
                group.cancel();
                Ok(())
            });
            assert!(ended.await.is_err());
            assert_eq!((start.elapsed(), done.get()), (ms(ends), 2));
        }
    });
}

#[test]
fn an_error_ends_it_and_is_its_own() {
    paused(async || {
        let ended = scope(async |group| {
            group.spawn(Periodic::rate(ms(10)).run(|tick| async move {
                if tick.number() == 3 {
                    return Err("third time".to_owned());
                }
                Ok(())
            }));
            pending::<Result<(), _>>().await
        });
        let error = ended.await.expect_err("it fails");
        assert_eq!(error.first().map(String::as_str), Some("third time"));
    });
}

#[test]
fn a_supervisor_restarts_it_when_it_panics() {
    paused(async || {
        let ran = Count::new();
        let mut supervisor = Supervisor::new().child({
            let ran = ran.clone();
            Child::permanent("flush", move |run: Run| {
                let ran = ran.clone();
                Periodic::rate(ms(10)).run(move |tick| {
                    ran.add();
                    assert!(run.number() > 1 || tick.number() < 3, "once");
                    async {}
                })
            })
            .backoff(Retry::constant(ms(1)))
        });
        let stop = supervisor.handle();
        supervisor.add(Child::temporary("stop", move |_| {
            let stop = stop.clone();
            async move {
                sleep(ms(55)).await;
                stop.shut_down();
            }
        }));
        let report = supervisor.run().await.expect("a shutdown");
        assert_eq!(
            (report.restarts, ran.get()),
            (1, 7),
            "0, 10, 20 and 21, 31, 41, 51"
        );
    });
}

#[test]
fn a_period_of_zero_and_a_policy_for_nothing_are_refused() {
    paused(async || {
        let refused = async |make: fn()| caught(async move { make() }).await.expect_err("refused");
        let text = refused(|| drop(Periodic::rate(Duration::ZERO))).await;
        assert!(text.contains("a period of zero"), "{text}");
        let text = refused(|| drop(Periodic::delay(ms(1)).missed(Missed::Burst))).await;
        assert!(text.contains("nothing is missed: Burst"), "{text}");
    });
}

#[test]
fn work_that_is_always_due_lets_others_run() {
    // By its delay, or because it always asks for one more run.
    let asks = Periodic::rate(ms(1_000_000));
    for periodic in [Periodic::delay(Duration::ZERO), asks] {
        paused(async || {
            let (ran, others) = (Count::new(), Count::new());
            let mut periodic = Box::pin({
                let (ran, handle) = (ran.clone(), periodic.handle());
                periodic.run::<BoxError, _, _>(move |_| {
                    ran.add();
                    handle.trigger();
                    async {}
                })
            });
            scope(async |group| {
                let others = others.clone();
                group.spawn(async move {
                    for _ in 0..10 {
                        others.add();
                        tokio::task::yield_now().await;
                    }
                });
                for _ in 0..20 {
                    let pending = futures::poll!(&mut periodic);
                    assert!(pending.is_pending(), "it takes turns");
                    tokio::task::yield_now().await;
                }
                Ok::<_, BoxError>(())
            })
            .await
            .expect("nobody fails");
            assert!(ran.get() > 20 && others.get() == 10);
        });
    }
}

#[test]
fn dropped_at_any_await_it_drops_the_run_that_it_is_in() {
    paused(async || {
        let drops = Drops::new();
        let cuts = cut_at_every_await(
            || {
                let drops = drops.clone();
                async move {
                    let work = Periodic::rate(ms(10)).run(|tick| {
                        let guard = drops.guard();
                        async move {
                            let _guard = guard;
                            sleep(ms(3)).await;
                            match tick.number() {
                                3 => Err(()),
                                _ => Ok(()),
                            }
                        }
                    });
                    assert!(work.await.is_err());
                }
            },
            |_| async { assert_eq!(drops.alive(), 0) },
        )
        .await;
        assert!(cuts > 4, "{cuts}");
    });
}

#[test]
fn a_handle_is_good_for_all_clones() {
    paused(async || {
        let work = Periodic::rate(ms(1000)).first_after(ms(1000));
        let (handle, runs) = (work.handle(), Log::new());
        let log = runs.clone();
        let supervisor = Supervisor::new().child(
            Child::transient("work", move |run| {
                let log = log.clone();
                work.clone().run(move |_| {
                    log.push(run.number());
                    let is_first = run.number() == 1;
                    async move {
                        if is_first {
                            Err(BoxError::from("no"))
                        } else {
                            Ok(())
                        }
                    }
                })
            })
            .backoff(Retry::constant(ms(1))),
        );
        let trigger = async {
            for _ in 0..2 {
                sleep(ms(10)).await;
                handle.trigger();
            }
            sleep(ms(10)).await;
            handle.stop();
        };
        let (ended, ()) = tokio::join!(supervisor.run(), trigger);
        assert_eq!(ended.expect("it was stopped").restarts, 1);
        assert_eq!(runs.entries(), [1, 2]);
    });
}
