//! What becomes of the results.

use ringfence::{Cause, fan_out};
use tokio::{task::yield_now, time::sleep};

use super::{Answer, Fail, bad, good, ms, parked};
use crate::support::{Drops, Log, every_runtime, paused};

/// The later in the input, the sooner it ends.
async fn backwards(n: u64) -> Result<u64, Fail> {
    sleep(ms(100 - n * 10)).await;
    good(n)
}

#[test]
fn collect_keeps_the_order_of_the_input_whatever_ends_first() {
    paused(async || {
        let fan = || fan_out(0..9_u64).limit(4);
        assert!(fan().collect(backwards).await.unwrap().into_iter().eq(0..9));
        assert!(
            fan()
                .local()
                .collect(backwards)
                .await
                .unwrap()
                .into_iter()
                .eq(0..9)
        );
    });
    every_runtime(async || {
        let uneven = async |n: usize| {
            for _ in 0..n % 7 {
                yield_now().await;
            }
            good(n)
        };
        let fan = || fan_out(0..2_000).limit(33);
        assert!(
            fan()
                .collect(uneven)
                .await
                .unwrap()
                .into_iter()
                .eq(0..2_000)
        );
        assert!(
            fan()
                .local()
                .collect(uneven)
                .await
                .unwrap()
                .into_iter()
                .eq(0..2_000)
        );
    });
}

#[test]
fn collect_unordered_gives_values_as_they_come() {
    paused(async || {
        let fan = || fan_out(0..4_u64).limit(4);
        assert_eq!(
            fan().collect_unordered(backwards).await.unwrap(),
            [3, 2, 1, 0]
        );
        let local = fan().local().collect_unordered(backwards).await;
        assert_eq!(local.unwrap(), [3, 2, 1, 0]);
    });
}

#[test]
fn fold_makes_values_into_one_as_they_come() {
    paused(async || {
        let fan = || fan_out(0..4_u64).limit(4);
        let join = |text: String, n: u64| text + &n.to_string();
        assert_eq!(
            fan().fold(String::new(), backwards, join).await.unwrap(),
            "3210"
        );
        let local = fan().local().fold(String::new(), backwards, join).await;
        assert_eq!(local.unwrap(), "3210");
    });
}

#[test]
fn the_first_success_wins_and_the_others_are_gone() {
    paused(async || {
        for is_local in [false, true] {
            let drops = Drops::new();
            let inner = drops.clone();
            let race = move |n: u64| {
                let guard = inner.guard();
                async move {
                    let _guard = guard;
                    sleep(ms(n)).await;
                    if n < 20 { bad("too early") } else { good(n) }
                }
            };
            let fan = fan_out([50, 10, 30, 40, 20, 60]).limit(6);
            let won = if is_local {
                fan.local().first_success(race).await
            } else {
                fan.first_success(race).await
            };
            assert_eq!(won.unwrap(), Some(20));
            assert_eq!((drops.made(), drops.alive()), (6, 0));
        }
    });
}

#[test]
fn when_none_succeeds_all_errors_are_told_in_order() {
    paused(async || {
        let lose = async |n: u64| {
            sleep(ms(n)).await;
            bad::<()>(&n.to_string())
        };
        let fan = || fan_out([30, 10, 20]).limit(3);
        let spawned = fan().first_success(lose).await.unwrap_err();
        let local = fan().local().first_success(lose).await.unwrap_err();
        for error in [spawned, local] {
            assert_eq!(error.cause(), &Cause::Failed);
            let told: Vec<_> = error
                .iter()
                .map(|f| f.error().unwrap().to_string())
                .collect();
            assert_eq!(told, ["10", "20", "30"]);
            let names: Vec<_> = error.iter().map(|f| f.task().unwrap().name()).collect();
            assert_eq!(names, [Some("item 1"), Some("item 2"), Some("item 0")]);
        }
    });
}

#[test]
fn outcomes_keep_going_and_tell_each_item() {
    every_runtime(async || {
        let odd = async |n: usize| {
            for _ in 0..n % 3 {
                yield_now().await;
            }
            if n % 2 == 1 {
                good(n)
            } else {
                bad(&n.to_string())
            }
        };
        let fan = || fan_out(0..100).limit(8);
        let spawned = fan().outcomes(odd).await.unwrap();
        let local = fan().local().outcomes(odd).await.unwrap();
        for outcomes in [spawned, local] {
            assert_eq!(outcomes.len(), 100);
            for (n, outcome) in outcomes.into_iter().enumerate() {
                let told = outcome.map_err(|error| error.to_string());
                assert_eq!(
                    told,
                    if n % 2 == 1 {
                        Ok(n)
                    } else {
                        Err(n.to_string())
                    }
                );
            }
        }
    });
}

#[test]
fn the_first_failure_in_time_ends_it_and_nothing_more_starts() {
    paused(async || {
        for is_local in [false, true] {
            let (log, drops) = (Log::new(), Drops::new());
            let (inner, gone) = (log.clone(), drops.clone());
            let work = move |n: u64| {
                inner.push(n);
                let guard = gone.guard();
                async move {
                    let _guard = guard;
                    sleep(ms(n)).await;
                    if n == 15 || n == 16 {
                        bad("first")
                    } else {
                        good(n)
                    }
                }
            };
            // By time, not by place; the fourth starts when the second has ended.
            let fan = fan_out([100, 10, 15, 16, 17, 18]).limit(3);
            let answer: Answer<Vec<u64>> = if is_local {
                fan.local().collect(work).await
            } else {
                fan.collect(work).await
            };
            let error = answer.unwrap_err();
            assert_eq!((error.len(), error.cause()), (1, &Cause::Failed));
            assert_eq!(
                error.iter().next().unwrap().task().unwrap().name(),
                Some("item 2")
            );
            assert_eq!(log.entries(), [100, 10, 15, 16]);
            assert_eq!(drops.alive(), 0);
        }
    });
}

#[test]
fn a_failure_tells_its_item_and_the_place_of_the_call() {
    every_runtime(async || {
        let spoil = async |n: usize| if n == 17 { bad("spoilt") } else { good(n) };
        let line = line!() + 1;
        let error = fan_out(0..40).limit(1).collect(spoil).await.unwrap_err();
        let task = error.iter().next().unwrap().task().unwrap().clone();
        assert_eq!(task.name(), Some("item 17"));
        assert_eq!(
            (task.location().file(), task.location().line()),
            (file!(), line)
        );
        assert_eq!(error.into_first().unwrap().to_string(), "spoilt");
        let line = line!() + 1;
        let local = fan_out(0..40).limit(1).local();
        let error = local.collect(spoil).await.unwrap_err();
        let task = error.iter().next().unwrap().task().unwrap().clone();
        assert_eq!(
            (task.name(), task.location().line()),
            (Some("item 17"), line)
        );
    });
}

#[test]
fn errors_need_no_annotation() {
    async fn fetch(n: u8, base: u32) -> Result<u8, std::num::ParseIntError> {
        u8::from_str_radix(&n.to_string(), base)
    }
    async fn caller() -> anyhow::Result<Vec<u8>> {
        fan_out([1, 2]).for_each(async |_| {}).await?;
        let all = fan_out([1, 2]).limit(64).collect(|n| fetch(n, 10)).await?;
        assert_eq!(fan_out([1]).local().collect(|n| fetch(n, 10)).await?, [1]);
        Ok(all)
    }
    async fn boxed() -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
        Ok(fan_out([1, 2]).collect(|n| fetch(n, 10)).await?)
    }
    every_runtime(async || {
        assert_eq!(caller().await.unwrap(), [1, 2]);
        assert_eq!(boxed().await.unwrap(), [1, 2]);
    });
}

#[test]
fn a_failure_comes_back_after_the_others_are_gone() {
    every_runtime(async || {
        for is_local in [false, true] {
            let drops = Drops::new();
            let inner = drops.clone();
            let work = move |n: usize| {
                let parked = parked(&inner);
                async move {
                    if n == 8 {
                        drop(parked);
                        return bad("done with it");
                    }
                    parked.await
                }
            };
            let fan = fan_out(0..1_000).limit(9);
            let error = if is_local {
                fan.local().for_each(work).await
            } else {
                fan.for_each(work).await
            };
            assert_eq!(error.unwrap_err().len(), 1);
            assert_eq!((drops.made(), drops.alive()), (9, 0));
        }
    });
}

#[test]
fn the_first_success_is_not_lost_to_workers_that_stop() {
    every_runtime(async || {
        for _ in 0..50 {
            let won = fan_out(0..).limit(64).first_success(|n| async move {
                if n < 61 {
                    std::future::pending::<()>().await;
                }
                if n == 1500 {
                    Ok(n)
                } else {
                    Err::<i32, _>("no")
                }
            });
            assert!(won.await.is_ok_and(|won| won == Some(1500)));
        }
    });
}
