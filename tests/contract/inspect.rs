//! Seeing inside: snapshots, details, counters.

mod traced;

use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use ringfence::inspect::{
    Counters, GroupState, GroupView, Snapshot, TaskState, WaitsFor, collect_details,
};
use ringfence::{
    Deadline, Displaced, Ended, Jitter, Limiter, Observer, OwnedGroup, Periodic, Rate, RateLimiter,
    Retry, Scope, Slots, Straggler, TaskGroup, TaskInfo, borrow_scope, queue, scope, shield,
    snapshot,
    supervise::{Child, Supervisor},
    token,
};
use tokio::task::yield_now;
use tokio::time::sleep;

use crate::support::{Count, Log, PanicOnDrop, every_runtime, paused, settle, until};

type Group = TaskGroup<String>;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Looks at what is inside the scope of this name: other tests have groups, too.
fn look(name: &str) -> Snapshot {
    snapshot().within(name)
}

fn named(name: &str) -> Scope {
    Scope::new().name(name)
}

/// Details are switched for the whole process, so those who do it take turns.
struct Details(#[expect(dead_code, reason = "held")] MutexGuard<'static, ()>);

impl Details {
    fn on() -> Self {
        let turn = Self::off();
        collect_details(true);
        turn
    }

    fn off() -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        Self(TURN.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Details {
    fn drop(&mut self) {
        collect_details(false);
    }
}

fn names(group: &GroupView) -> Vec<&str> {
    let names = group.tasks.iter().filter_map(|task| task.name.as_deref());
    names.collect()
}

#[test]
fn a_snapshot_shows_groups_their_children_and_where_those_were_spawned() {
    every_runtime(async || {
        let run = named("shop").run(async |group: &Group| {
            group.named("till").spawn(pending::<()>());
            let line = line!() + 1;
            let parked = group.spawn(pending::<()>());
            until(|| look("shop").tasks().all(|task| task.spawned_at.is_some())).await;
            until(|| look("shop").tasks().count() == 2).await;
            let seen = look("shop");
            let [shop] = seen.groups() else {
                panic!("one group: {seen:?}")
            };
            assert_eq!(
                (shop.path.as_deref(), shop.state),
                (Some("shop"), GroupState::Open)
            );
            assert_eq!(
                (shop.children, shop.unlisted(), shop.opened_in),
                (2, 0, None)
            );
            assert_eq!(names(shop), ["till"]);
            let place = shop.tasks[1].spawned_at.expect("it was parked");
            assert_eq!((place.file(), place.line()), (file!(), line));
            assert_eq!(
                (shop.tasks[1].id, shop.tasks[1].state),
                (parked.id(), TaskState::Running)
            );
            group.cancel_children();
            Ok(())
        });
        run.await.expect("nobody fails");
    });
}

#[test]
fn a_scope_hangs_below_the_task_that_it_was_opened_in() {
    paused(async || {
        let run = named("outer").run(async |group: &Group| {
            let child = group.named("mid").spawn(async {
                let inner = named("inner").run(async |group: &Group| {
                    group.spawn(pending::<()>());
                    pending::<Result<(), String>>().await
                });
                inner.await.map_err(|error| error.to_string())
            });
            let id = child.id();
            settle().await;
            let seen = look("outer");
            let [outer, inner] = seen.groups() else {
                panic!("two groups: {seen:?}")
            };
            assert_eq!(inner.path.as_deref(), Some("outer/mid/inner"));
            assert_eq!((inner.opened_in, inner.children), (Some(id), 1));
            assert_eq!(inner.tasks[0].id.to_string(), format!("{}.1", inner.id));
            assert_eq!(outer.tasks[0].id, id);
            group.cancel_children();
            Ok(())
        });
        run.await.expect("nobody fails");
    });
}

#[test]
fn a_scope_in_the_body_of_another_hangs_below_that_body() {
    paused(async || {
        let run = named("two").run(async |_: &Group| {
            let inner = named("in").run(async |group: &Group| {
                group.named("leaf").spawn(sleep(ms(5)));
                sleep(ms(1)).await;
                let seen = look("two");
                let [outer, inner] = seen.groups() else {
                    panic!("two groups: {seen:?}")
                };
                assert_eq!(
                    inner.opened_in.map(|task| task.to_string()),
                    Some(format!("{}.0", outer.id))
                );
                assert!(seen.to_string().contains("└─ group"), "{seen}");
                Ok(())
            });
            inner.await.map_err(|error| error.to_string())
        });
        run.await.expect("nobody fails");
    });
}

#[test]
fn children_of_borrowing_scopes_are_shown_alike() {
    paused(async || {
        let own = String::from("mine");
        let run = named("lent").run(async |_: &Group| {
            let inner = borrow_scope(async |group: ringfence::BorrowGroup<'_, String>| {
                group.named("borrower").spawn(async {
                    sleep(ms(5)).await;
                    assert_eq!(own.len(), 4);
                });
                sleep(ms(1)).await;
                let seen = look("lent");
                assert_eq!(names(&seen.groups()[1]), ["borrower"]);
                sleep(ms(10)).await;
                assert!(look("lent").groups()[1].tasks.is_empty());
                Ok(())
            });
            inner.await.map_err(|error| error.to_string())
        });
        run.await.expect("nobody fails");
    });
}

#[test]
fn of_a_body_that_throws_before_it_gives_a_future_the_children_are_counted() {
    paused(async || {
        let run = named("thrown").run(|group: &Group| -> std::future::Ready<Result<(), String>> {
            group.spawn(async { shield(ms(10), sleep(ms(5))).await });
            group.spawn(async {});
            panic!("no future")
        });
        let mut run = Box::pin(crate::support::caught(run));
        assert!(futures::poll!(&mut run).is_pending());
        let seen = look("thrown");
        let group = &seen.groups()[0];
        assert_eq!((group.children, group.body.is_none()), (2, true));
        assert_eq!(run.await.unwrap_err(), "no future");
    });
}

#[test]
fn children_that_never_had_to_wait_are_counted_and_not_listed() {
    paused(async || {
        let run = named("fresh").run(async |group: &Group| {
            yield_now().await;
            for _ in 0..3 {
                group.spawn(async {});
            }
            let seen = look("fresh");
            let shop = &seen.groups()[0];
            assert_eq!(
                (shop.children, shop.tasks.len(), shop.unlisted()),
                (3, 0, 3)
            );
            assert!(
                seen.to_string()
                    .ends_with("└─ 3 that never had to wait, or no tasks\n")
            );
            Ok(())
        });
        run.await.expect("nobody fails");
    });
}

#[test]
fn what_is_over_is_not_shown() {
    every_runtime(async || {
        let run = named("gone").run(async |group: &Group| {
            group.spawn(yield_now());
            yield_now().await;
            assert_eq!(look("gone").groups().len(), 1);
            until(|| group.is_empty()).await;
            assert_eq!(look("gone").tasks().count(), 0);
            Ok(group.token())
        });
        let token = run.await.expect("nobody fails");
        assert!(look("gone").is_empty(), "a token keeps no group in sight");
        drop(token);
    });
}

#[test]
fn a_long_lived_group_is_shown_from_its_making_on() {
    paused(async || {
        let group = OwnedGroup::<String>::with_name("lasting");
        let seen = look("lasting");
        assert!(seen.groups()[0].body.is_none());
        assert_eq!(seen.groups()[0].children, 0);
        group.close();
        assert_eq!(look("lasting").groups()[0].state, GroupState::Closing);
        let report = group.shutdown(Duration::ZERO).await;
        assert!(report.is_clean());
        assert!(look("lasting").is_empty());
        // While it is shut down, it has as many children as before.
        let group = OwnedGroup::<String>::with_name("lasting");
        group.spawn(async { shield(ms(10), sleep(ms(5))).await });
        settle().await;
        assert_eq!(look("lasting").groups()[0].children, 1);
        let mut shutdown = Box::pin(group.shutdown(Duration::ZERO));
        assert!(futures::poll!(&mut shutdown).is_pending());
        assert_eq!(look("lasting").groups()[0].children, 1);
        assert!(shutdown.await.is_clean());
    });
}

#[test]
fn a_guard_is_shown_with_the_place_where_it_was_made() {
    paused(async || {
        let group = OwnedGroup::<String>::with_name("guarded");
        let guard = group.guard().expect("it is open");
        let seen = look("guarded");
        let place = seen.groups()[0].tasks[0].spawned_at.expect("known");
        assert_eq!((place.file(), place.line()), (file!(), line!() - 3));
        drop(guard);
        assert_eq!(look("guarded").groups()[0].children, 0);
        assert_eq!(look("guarded").tasks().count(), 0);
    });
}

#[test]
fn the_signalled_and_the_forced_are_told_apart() {
    paused(async || {
        let run = named("ending").grace(ms(50)).run(async |group: &Group| {
            group.named("polite").spawn(async {
                token().cancelled().await;
                sleep(ms(20)).await;
            });
            group
                .named("shielded")
                .spawn(shield(ms(500), pending::<()>()));
            let alone = group.named("alone").spawn(async {
                token().cancelled().await;
                sleep(ms(20)).await;
            });
            yield_now().await;
            alone.cancel();
            let seen = look("ending");
            let cancelling = seen
                .tasks()
                .filter(|task| task.state == TaskState::Cancelling);
            let cancelling: Vec<_> = cancelling.map(|task| task.name.as_deref()).collect();
            assert_eq!(cancelling, [Some("alone")]);
            group.cancel();
            let seen = look("ending");
            assert!(seen.tasks().all(|task| task.state == TaskState::Cancelling));
            assert!(
                seen.to_string().contains("closing, cancelled on request"),
                "{seen}"
            );
            shield(ms(500), sleep(ms(100))).await;
            let seen = look("ending");
            let left: Vec<_> = seen
                .tasks()
                .map(|task| (task.name.as_deref(), task.state))
                .collect();
            assert_eq!(left, [(Some("shielded"), TaskState::Forced)]);
            Ok(())
        });
        assert!(run.await.is_err_and(|error| error.is_cancelled()));
    });
}

#[test]
fn a_cancel_further_out_is_seen_wherever_its_tokens_reach() {
    paused(async || {
        let run = named("seen-below")
            .grace(ms(50))
            .run(async |outer: &Group| {
                outer.spawn(async {
                    let inner = named("inner").run(async |group: &Group| {
                        group.named("deaf").spawn(pending::<()>());
                        group.named("screened").spawn(shield(ms(500), async {
                            let apart = named("apart").run(async |group: &Group| {
                                group.named("calm").spawn(sleep(ms(20)));
                                Ok(())
                            });
                            drop(apart.await);
                        }));
                        Ok(())
                    });
                    drop(inner.await);
                });
                settle().await;
                outer.cancel();
                sleep(ms(1)).await;
                let seen = look("seen-below");
                let state = |name| {
                    let mut tasks = seen
                        .tasks()
                        .filter(|task| task.name.as_deref() == Some(name));
                    tasks.next().map(|task| task.state)
                };
                assert_eq!(state("deaf"), Some(TaskState::Cancelling));
                assert_eq!(state("calm"), Some(TaskState::Running), "behind a shield");
                Ok(())
            });
        drop(run.await);
    });
}

#[test]
fn time_left_is_that_until_the_earliest_deadline() {
    paused(async || {
        let run = named("dated")
            .deadline(Deadline::after(ms(700)))
            .run(async |_: &Group| {
                let inner = scope(async |_: &Group| {
                    sleep(ms(200)).await;
                    Ok(look("dated"))
                });
                inner.await.map_err(|error| error.to_string())
            });
        let seen = run.await.expect("nobody fails");
        let left: Vec<_> = seen.groups().iter().map(|group| group.remaining).collect();
        assert_eq!(left, [Some(ms(500)), Some(ms(500))]);
    });
}

#[test]
fn any_thread_can_look() {
    every_runtime(async || {
        let run = named("afar").run(async |group: &Group| {
            group.named("far").spawn(pending::<()>());
            yield_now().await;
            let seen = thread::spawn(|| look("afar")).join().expect("no panic");
            assert_eq!(names(&seen.groups()[0]), ["far"]);
            group.cancel_children();
            Ok(())
        });
        run.await.expect("nobody fails");
    });
}

#[test]
fn a_leaked_scope_stays_in_sight() {
    paused(async || {
        let group = OwnedGroup::<String>::with_name("lost");
        group.spawn(async {
            let mut leaked = Box::pin(scope(async |group: &Group| {
                group.named("orphan").spawn(pending::<()>());
                pending::<Result<(), String>>().await
            }));
            assert!(futures::poll!(leaked.as_mut()).is_pending());
            #[expect(clippy::mem_forget, reason = "what leaks must be found")]
            std::mem::forget(leaked);
        });
        settle().await;
        let seen = look("lost");
        assert_eq!(names(&seen.groups()[1]), ["orphan"]);
        group.cancel();
    });
}

#[test]
fn with_details_a_task_tells_its_age_its_polls_and_what_it_waits_for() {
    let _details = Details::on();
    paused(async || {
        let run = named("known").run(async |group: &Group| {
            let slow = group.named("slow").spawn(async {
                sleep(ms(30)).await;
                sleep(ms(100)).await;
            });
            let id = slow.id();
            let handle = slow.detached();
            group.named("waiter").spawn(async { drop(handle.await) });
            sleep(ms(40)).await;
            let seen = look("known");
            let [slow, waiter] = &*seen.groups()[0].tasks else {
                panic!("{seen}")
            };
            assert_eq!(
                (slow.age, slow.polls, slow.waits_for),
                (Some(ms(40)), Some(2), None)
            );
            assert_eq!(waiter.waits_for, Some(WaitsFor::Child(id)));
            assert!(slow.to_string().ends_with(", 40.0ms, 2 polls"), "{slow}");
            assert!(waiter.to_string().contains(", 1 poll, "), "{waiter}");
            Ok(())
        });
        run.await.expect("nobody fails");
    });
}

#[test]
fn with_details_waits_of_every_room_are_told_apart() {
    let _details = Details::on();
    paused(async || {
        let (sender, receiver) = queue::bounded(1);
        sender.try_send(1).expect("room");
        let (empty_sender, mut empty) = queue::bounded::<()>(1);
        let limiter = Limiter::new(1);
        let _held = limiter.try_acquire().expect("free");
        let rate = RateLimiter::new(Rate::new(1, ms(1_000)));
        rate.acquire().await.expect("the first one");
        let slots = Slots::new(1);
        let run = named("rooms").run(async |group: &Group| {
            let join = receiver.clone();
            group.named("join").spawn(async move { join.join().await });
            group
                .named("item")
                .spawn(async move { drop(empty.recv().await) });
            let other = limiter.clone();
            group
                .named("permit")
                .spawn(async move { drop(other.acquire().await) });
            group
                .named("rate")
                .spawn(async move { drop(rate.acquire().await) });
            group.named("backoff").spawn(async {
                let fails = Retry::constant(ms(900))
                    .jitter(Jitter::None)
                    .retry(async |_| Err::<(), _>(1));
                drop(fails.await);
            });
            let every = Periodic::delay(ms(900)).first_after(ms(900));
            group
                .named("tick")
                .spawn(every.run(async |_| Ok::<_, String>(())));
            let spawner = group.spawner().limit(slots.clone());
            drop(spawner.spawn(pending::<()>()).await);
            group
                .named("slot")
                .spawn(async move { drop(spawner.spawn(pending::<()>()).await) });
            group
                .named("room")
                .spawn(async move { sender.send(2).await.expect("cancelled before") });
            sleep(ms(5)).await;
            let seen = look("rooms");
            let waits: Vec<_> = seen
                .tasks()
                .filter_map(|task| Some((task.name.as_deref()?, task.waits_for?)))
                .collect();
            use WaitsFor::{Backoff, Done, Item, Permit, Rate, Room, Slot, Tick};
            assert_eq!(
                waits,
                [
                    ("join", Done),
                    ("item", Item),
                    ("permit", Permit),
                    ("rate", Rate),
                    ("backoff", Backoff),
                    ("tick", Tick),
                    ("slot", Slot),
                    ("room", Room)
                ]
            );
            group.cancel_children();
            Ok(())
        });
        run.await.expect("nobody fails");
        drop(empty_sender);
    });
}

#[test]
fn with_details_a_body_tells_what_it_waits_for() {
    let _details = Details::on();
    paused(async || {
        let group = OwnedGroup::<String>::with_name("bodies");
        group.spawn(async {
            let waits = scope(async |group: &Group| {
                let child = group.spawn(sleep(ms(20)));
                child.await;
                group.spawn(sleep(ms(20)));
                Ok(())
            });
            waits.await.map_err(|error| error.to_string())
        });
        sleep(ms(10)).await;
        let seen = look("bodies");
        let [outer, inner] = seen.groups() else {
            panic!("{seen}")
        };
        let child = inner.tasks[0].id;
        let body = inner.body.as_ref().expect("it is there");
        assert_eq!(
            (body.polls, body.waits_for),
            (Some(1), Some(WaitsFor::Child(child)))
        );
        assert_eq!(
            outer.tasks[0].waits_for,
            Some(WaitsFor::Child(child)),
            "what its scope waits for"
        );
        sleep(ms(20)).await;
        let seen = look("bodies");
        assert!(seen.groups()[1].body.is_none());
        assert_eq!(
            seen.groups()[0].tasks[0].waits_for,
            Some(WaitsFor::Children(inner.id))
        );
        assert!(group.wait().await.is_clean());
    });
}

#[test]
fn with_details_a_supervisor_waits_for_no_child_in_particular() {
    let _details = Details::on();
    paused(async || {
        let idle = |_| async { token().cancelled().await };
        let supervisor = Supervisor::new()
            .name("even-handed")
            .child(Child::permanent("a", idle));
        let handle = supervisor.handle();
        let look = async {
            settle().await;
            let seen = look("even-handed");
            let body = seen.groups()[0].body.as_ref().expect("the driver");
            assert_eq!(body.waits_for, None, "{seen}");
            handle.shut_down();
        };
        let (ended, ()) = tokio::join!(supervisor.run(), look);
        ended.expect("a shutdown");
    });
}

#[test]
fn tasks_that_wait_for_one_another_in_a_circle_are_found() {
    let _details = Details::on();
    paused(async || {
        let group = OwnedGroup::<String>::with_name("knot");
        let (give, take) = tokio::sync::oneshot::channel();
        let first = group.spawn(async move {
            let other: ringfence::OutcomeHandle<()> = take.await.expect("sent");
            drop(other.await);
        });
        let (one, spawner) = (first.id(), group.spawner());
        let second = spawner.spawn(async move { drop(first.await) });
        let two = second.id();
        give.send(second).expect("it waits");
        settle().await;
        let seen = look("knot");
        assert_eq!(seen.cycles(), [vec![one, two]]);
        assert!(
            seen.to_string()
                .ends_with(&format!("in a circle: {one} {two} {one}\n"))
        );
        group.cancel();
    });
}

#[test]
fn a_task_that_waits_for_itself_is_a_circle_of_one() {
    let _details = Details::on();
    paused(async || {
        let group = OwnedGroup::<String>::with_name("loop");
        let (give, take) = tokio::sync::oneshot::channel();
        let own = group.spawn(async move {
            let own: ringfence::OutcomeHandle<()> = take.await.expect("sent");
            drop(own.await);
        });
        let id = own.id();
        give.send(own).expect("it waits");
        settle().await;
        let seen = look("loop");
        assert_eq!(seen.cycles(), [vec![id]]);
        let text = seen.to_string();
        assert!(
            text.ends_with(&format!("in a circle: {id} {id}\n")),
            "{text}"
        );
        group.cancel();
    });
}

#[test]
fn without_details_nothing_is_noted() {
    let details = Details::off();
    paused(async || {
        let run = named("plain").run(async |group: &Group| {
            group.spawn(pending::<()>());
            sleep(ms(5)).await;
            let seen = look("plain");
            let task = &seen.groups()[0].tasks[0];
            assert_eq!((task.age, task.polls, task.waits_for), (None, None, None));
            assert_eq!(
                seen.groups()[0].body.as_ref().and_then(|body| body.polls),
                None
            );
            group.cancel_children();
            Ok(())
        });
        run.await.expect("nobody fails");
    });
    drop(details);
}

#[test]
fn the_tree_is_text_and_json_and_mermaid() {
    let _details = Details::off();
    paused(async || {
        let run = named("tree").run(async |group: &Group| {
            group.named("b\"r").spawn(async {
                let inner = scope(async |group: &Group| {
                    group.spawn_background(pending::<()>());
                    pending::<Result<(), String>>().await
                });
                inner.await.map_err(|error| error.to_string())
            });
            group.spawn(pending::<()>());
            settle().await;
            let seen = look("tree");
            let (a, b) = (seen.groups()[0].id, seen.groups()[1].id);
            let place = |id: &str| {
                let task = seen.tasks().find(|task| task.id.to_string() == id);
                task.and_then(|task| task.spawned_at).expect("parked").to_string()
            };
            let [a1, a2, b1] = [place(&format!("{a}.1")), place(&format!("{a}.2")), place(&format!("{b}.1"))];
            let text = format!(
                "group {a} `tree`: open, 2 children\n\
                 ├─ task {a}.1 `b\"r`, spawned at {a1}\n\
                 │  └─ group {b} `tree/b\"r`: open, 1 child (1 in the background)\n\
                 │     └─ task {b}.1, spawned at {b1}\n\
                 └─ task {a}.2, spawned at {a2}\n"
            );
            assert_eq!(seen.to_string(), text);
            let none = "\"polls\":null,\"waits_for\":null";
            let task = |id: &str, name: &str, place: &str| {
                format!("{{\"id\":\"{id}\",\"name\":{name},\"spawned_at\":\"{place}\",\"state\":\"running\",\"age_ms\":null,{none}}}")
            };
            let of = |id: u64, path: &str, opened_in: &str| {
                format!("{{\"id\":{id},\"path\":\"{path}\",\"opened_in\":{opened_in},\"state\":\"open\",\"reason\":null,\"remaining_ms\":null,\"body\":{{{none}}}")
            };
            let json = format!(
                "{{\"groups\":[{},\"children\":2,\"background\":0,\"tasks\":[{},{}]}},{},\"children\":1,\"background\":1,\"tasks\":[{}]}}]}}",
                of(a, "tree", "null"),
                task(&format!("{a}.1"), "\"b\\\"r\"", &a1),
                task(&format!("{a}.2"), "null", &a2),
                of(b, "tree/b\\\"r", &format!("\"{a}.1\"")),
                task(&format!("{b}.1"), "null", &b1),
            );
            assert_eq!(seen.to_json(), json);
            let mermaid = format!(
                "flowchart TD\n    \
                 g{a}[\"tree<br/>open · 2 alive\"]\n    \
                 g{a} --> t{a}_1([\"b#quot;r\"])\n    \
                 g{a} --> t{a}_2([\"{a}.2\"])\n    \
                 g{b}[\"tree/b#quot;r<br/>open · 1 alive\"]\n    \
                 t{a}_1 --> g{b}\n    \
                 g{b} --> t{b}_1([\"{b}.1\"])\n"
            );
            assert_eq!(seen.to_mermaid(), mermaid);
            group.cancel_children();
            Ok(())
        });
        run.await.expect("nobody fails");
    });
}

#[test]
fn a_name_means_nothing_to_the_format_that_it_is_written_in() {
    paused(async || {
        let name = "\\\" <#>\u{1}";
        let run = named("escaped").deadline(Deadline::after(ms(9)));
        let run = run.run(async |group: &Group| {
            let child = group.named(name).spawn(shield(ms(9), sleep(ms(5))));
            settle().await;
            child.cancel();
            let seen = look("escaped");
            assert!(seen.to_string().contains("9.0ms left"), "{seen}");
            let json = seen.to_json();
            assert!(json.contains(r#""\\\" <#>\u0001""#), "{json}");
            let mermaid = seen.to_mermaid();
            let label = "[\"\\#quot; #lt;#35;#gt; <br/>";
            assert!(mermaid.contains(label), "{mermaid}");
            Ok(())
        });
        run.await.expect("nobody fails");
    });
}

/// Scopes nested through spawn: the innermost parks.
fn nested(depth: usize, reached: Count) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        let nested = scope(async |group: &Group| -> Result<(), String> {
            match depth {
                0 => drop(reached.add()),
                _ => drop(group.spawn(nested(depth - 1, reached))),
            }
            pending().await
        });
        drop(nested.await);
    })
}

#[test]
fn a_tree_that_is_deeper_than_any_stack_is_drawn() {
    const DEPTH: usize = 10_000;
    paused(async || {
        let reached = Count::new();
        let result = named("deep").run(async |group: &Group| {
            group.spawn(nested(DEPTH, reached.clone()));
            until(|| reached.get() == 1).await;
            settle().await;
            let lines = look("deep").to_string().lines().count();
            // The scope and its child, and for each one inside the same, but for the last one's child.
            assert_eq!(lines, 2 + 2 * DEPTH + 1);
            group.cancel();
            Ok(())
        });
        assert!(result.await.expect_err("cancelled").is_cancelled());
    });
}

#[test]
fn counters_tell_how_the_children_of_each_path_ended() {
    paused(async || {
        let counters = Arc::new(Counters::new());
        let run = named("counted")
            .panics_as_errors()
            .grace(ms(5))
            .observer(counters.clone());
        let run = run.run(async |group: &Group| {
            group.spawn(async {}).await;
            let held = group.spawn(pending::<()>());
            assert_eq!(counters.of("counted").live(), 1);
            held.cancel_and_wait().await;
            let inner = named("in").run(async |group: &Group| {
                group.spawn(async { Err::<(), _>("no".to_owned()) });
                group.spawn(async { panic!("ouch") });
                Ok(())
            });
            drop(inner.await);
            group.spawn(async { drop(PanicOnDrop("at the end")) });
            Ok(())
        });
        drop(run.await);
        let outer = counters.of("counted");
        assert_eq!((outer.spawned, outer.completed, outer.panicked), (3, 1, 1));
        assert_eq!((outer.cancelled, outer.forced, outer.live()), (1, 1, 0));
        let inner = counters.of("counted/in");
        assert_eq!((inner.spawned, inner.ended(), inner.live()), (2, 2, 0));
        assert_eq!(inner.failed + inner.panicked + inner.cancelled, 2);
        let total = counters.total();
        assert_eq!((total.spawned, counters.groups().len()), (5, 2));
        assert_eq!((total.ended(), total.cancelled), (5, 1 + inner.cancelled));
        assert_eq!(total.forced, outer.forced + inner.forced);
        assert_eq!(total.displaced, outer.displaced + inner.displaced);
        assert_eq!(counters.of("nobody"), ringfence::inspect::Counts::default());
    });
}

#[test]
fn two_observers_hear_everything_and_one_that_throws_costs_the_other_nothing() {
    struct Throws(Count);
    impl Observer for Throws {
        fn spawned(&self, _: &TaskInfo) {
            self.0.add();
            panic!("a hook")
        }
        fn ended(&self, _: &TaskInfo, _: &Ended) {
            self.0.add();
            panic!("a hook")
        }
    }
    struct Hears(Log<String>);
    impl Observer for Hears {
        fn spawned(&self, _: &TaskInfo) {
            self.0.push("spawned".to_owned());
        }
        fn ended(&self, _: &TaskInfo, how: &Ended) {
            self.0.push(format!("{how:?}"));
        }
        fn displaced(&self, what: &Displaced) {
            self.0.push(what.to_string());
        }
        fn forced(&self, straggler: &Straggler) {
            self.0.push(straggler.to_string());
        }
    }
    paused(async || {
        let (thrown, log) = (Count::new(), Log::new());
        let both = (Throws(thrown.clone()), Arc::new(Hears(log.clone())));
        let run = Scope::new()
            .observer(Arc::new(both))
            .run(async |group: &Group| {
                group.spawn(async {});
                Ok(())
            });
        run.await.expect("nobody fails");
        assert_eq!(
            (thrown.get(), log.entries()),
            (2, vec!["spawned".to_owned(), "Completed".to_owned()])
        );
        let both = (Throws(thrown.clone()), Arc::new(Hears(log.clone())));
        let run = Scope::new().grace(ms(5)).observer(Arc::new(both));
        let run = run.run(async |group: &Group| {
            group.spawn(pending::<()>());
            sleep(ms(1)).await;
            group.cancel();
            Ok(())
        });
        assert_eq!(run.await.expect_err("a cancel").forced().len(), 1);
        assert!(log.entries().iter().any(|text| text.contains("forced")));
    });
}

#[test]
fn a_body_that_is_forced_is_named_and_counted_by_its_group() {
    paused(async || {
        let counters = Arc::new(Counters::new());
        let run = named("late").grace(ms(5)).observer(counters.clone());
        let run = run.run(async |group: &Group| {
            group.cancel();
            pending::<Result<(), String>>().await
        });
        let error = run.await.expect_err("a cancel");
        let body = error.forced()[0].to_string();
        assert!(body.starts_with("the body of `late` had to be forced"));
        assert_eq!(counters.of("late").forced, 1);
    });
}
