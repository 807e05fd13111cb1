//! The kit for tests of those who use the crate.

use std::future::pending;
use std::time::Duration;

use ringfence::testing::{Smallest, cut_at_every_await, nothing_alive};
use ringfence::{OwnedGroup, Scope, Slots, TaskGroup, fan_out, queue, scope, shield, timeout};
use tokio::time::{Instant, sleep};

use crate::support::{Count, every_runtime, paused};

type Group = TaskGroup<String>;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn after_a_scope_nothing_is_alive() {
    every_runtime(async || {
        let run = scope(async |group: &Group| {
            group.spawn(tokio::task::yield_now());
            Ok(())
        });
        run.await.expect("nobody fails");
        nothing_alive().await.expect("nothing");
    });
}

#[test]
fn what_a_dropped_scope_left_behind_is_waited_for() {
    paused(async || {
        let run = scope(async |group: &Group| {
            group.spawn(shield(ms(500), sleep(ms(300))));
            pending::<Result<(), String>>().await
        });
        assert!(timeout(ms(1), run).await.is_err());
        nothing_alive().await.expect("it is gone by now");
    });
}

#[test]
fn what_nobody_shut_down_is_named() {
    paused(async || {
        let group = OwnedGroup::<String>::with_name("forgotten");
        group.spawn(pending::<()>());
        tokio::task::yield_now().await;
        let alive = nothing_alive().await.expect_err("a group");
        let text = alive.to_string();
        assert!(
            text.starts_with("1 groups are alive (0 of dropped scopes)\n"),
            "{text}"
        );
        assert!(
            text.contains("`forgotten`: open, 1 child\n└─ task "),
            "{text}"
        );
        assert_eq!(alive.groups().groups().len(), 1);
        group.shutdown(Duration::ZERO).await;
        nothing_alive().await.expect("nothing any more");
    });
}

#[test]
fn what_does_not_end_after_its_scope_was_dropped_is_named() {
    paused(async || {
        let run = Scope::new().name("dropped").run(async |group: &Group| {
            group
                .named("clinging")
                .spawn(shield(ms(5_000), pending::<()>()));
            pending::<Result<(), String>>().await
        });
        assert!(timeout(ms(1), run).await.is_err());
        let alive = nothing_alive().await.expect_err("a task");
        assert!(alive.to_string().contains("(1 of dropped scopes)\ngroup "));
        assert!(alive.to_string().contains("`clinging`"));
        sleep(ms(5_000)).await;
        nothing_alive().await.expect("the shield has a bound");
    });
}

#[test]
fn other_runtimes_are_not_looked_at() {
    let other = crate::support::paused_runtime();
    let group = other.block_on(async { OwnedGroup::<String>::with_name("elsewhere") });
    paused(async || nothing_alive().await.expect("not here"));
    drop(group);
}

#[test]
fn a_future_is_cut_before_it_begins_and_at_each_await_that_waits() {
    paused(async || {
        let (begun, passed) = (Count::new(), Count::new());
        let make = || async {
            begun.add();
            sleep(ms(1)).await;
            passed.add();
            std::future::ready(()).await;
            sleep(ms(1)).await;
            passed.add();
        };
        let (mut seen, start) = (Vec::new(), Instant::now());
        let cuts = cut_at_every_await(make, async |cut| {
            seen.push((cut, begun.get(), passed.get()));
        })
        .await;
        assert_eq!(cuts, 3);
        assert_eq!(start.elapsed(), ms(3), "what is cut is not waited for");
        assert_eq!(seen, [(0, 0, 0), (1, 1, 0), (2, 2, 1), (3, 3, 3)]);
    });
}

#[test]
fn capacities_are_one_while_that_is_asked_for() {
    paused(async || {
        let smallest = Smallest::new();
        let (sender, mut receiver) = queue::bounded(100);
        sender.try_send(1).expect("room for one");
        assert!(sender.try_send(2).is_err());
        assert_eq!(Slots::new(8).limit(), 1);
        let work = fan_out(0..5).limit(4);
        assert!(format!("{work:?}").contains("limit: 1"), "{work:?}");
        drop(smallest);
        assert_eq!(receiver.try_recv().expect("an item"), 1);
        let (sender, _receiver) = queue::bounded(2);
        sender.try_send(1).expect("room");
        sender.try_send(2).expect("room for two again");
        let (sender, _receiver) = queue::unbounded();
        let _smallest = Smallest::new();
        sender.try_send(1).expect("room");
        sender.try_send(2).expect("what has no limit gets none");
    });
}
