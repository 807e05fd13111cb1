//! What is shown: what `Debug` and `Display` make of every public type that writes them itself.

use std::{
    cell::Cell,
    error::Error as _,
    fmt::{Debug, Display},
    future::{pending, ready},
    time::Duration,
};

use futures::FutureExt;
use ringfence::{
    BoxError, CancelReason, Child, Deadline, Ended, FlightError, Hedge, Jitter, KeyedLimiter,
    Latency, Limiter, OwnedGroup, Periodic, Process, Progress, Rate, RateError, RateLimiter, Ready,
    Retry, RetryBudget, RetryReason, SingleFlight, Slots, Supervisor, TaskGroup, Workers, fan_out,
    inspect::{Stall, WaitsFor, Watchdog},
    queue::{self, Queue, SendError, TryRecvError},
    retry::Attempt,
    root, scope, shield,
    supervise::{ChildEnd, ChildState, Run},
    testing::Smallest,
    timeout, token,
};

use crate::support::{paused, single_thread};

/// Asserts that what `Debug` makes of each begins so.
#[track_caller]
fn shows(all: &[(&dyn Debug, &str)]) {
    for (thing, wanted) in all {
        let shown = format!("{thing:?}");
        assert!(shown.starts_with(wanted), "{shown}, not {wanted}");
    }
}

/// Asserts what `Display` makes of each.
#[track_caller]
fn says(all: &[(&dyn Display, &str)]) {
    for (thing, wanted) in all {
        assert_eq!(thing.to_string(), *wanted);
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn reasons_and_ends_read_as_parts_of_a_sentence() {
    single_thread(async || {
        let group = OwnedGroup::<BoxError>::default();
        let id = group.spawn(pending::<()>()).id();
        says(&[
            (
                &CancelReason::Failed(id),
                &format!("because task {id} failed"),
            ),
            (
                &CancelReason::Panicked(id),
                &format!("because task {id} panicked"),
            ),
            (&CancelReason::BodyPanicked, "because the body panicked"),
            (&CancelReason::Deadline, "because the deadline passed"),
            (&CancelReason::Finished, "because everybody else was done"),
            (&CancelReason::Handle, "through its handle"),
            (
                &CancelReason::ChildrenCancelled,
                "together with all children",
            ),
            (
                &CancelReason::AwaitedCancelled(id),
                &format!("because the body awaited the cancelled task {id}"),
            ),
            (
                &CancelReason::RuntimeGone,
                "because the runtime was shut down",
            ),
            (&CancelReason::Closed, "because the group was already done"),
            (&Ended::Panicked, "panicked"),
            (
                &Ended::Cancelled(CancelReason::Handle),
                "cancelled through its handle",
            ),
            (&Ended::RuntimeGone, "its runtime was shut down"),
            (&WaitsFor::Slot, "a slot"),
            (&WaitsFor::Room, "room in a queue"),
            (&WaitsFor::Done, "the end of a queue's work"),
            (&WaitsFor::Permit, "a permit"),
            (&WaitsFor::Rate, "its rate"),
            (&WaitsFor::Backoff, "its next attempt"),
            (&ChildEnd::NotReady(SECOND), "it was not ready within 1s"),
            (&ChildEnd::Cancelled { forced: false }, "it was cancelled"),
            (&ChildEnd::Cancelled { forced: true }, "it had to be forced"),
            (&ChildEnd::RuntimeGone, "its runtime was shut down"),
            (&ChildEnd::Lost, "its supervisor was dropped"),
            (&Stall::Lag { late: SECOND }, "the runtime is 1.0s late"),
        ]);
        group.shutdown(Duration::ZERO).await;
    });
}

#[test]
fn groups_and_what_they_hand_out_show_where_they_are() {
    single_thread(async || {
        let done = scope(async |group: &TaskGroup| {
            let slots = Slots::new(2);
            let limited = group.limit(slots.clone());
            let background = group.spawn_background(pending::<()>());
            let completed = group.as_completed([ready(Ok::<_, BoxError>(()))]);
            shows(&[
                (&token(), "Token { is_cancelled: false }"),
                (&token().cancelled(), "Cancelled { token: Token {"),
                (&slots, "Slots { limit: 2, free: 2 }"),
                (&group.named("a"), "Named { name: \"a\", .. }"),
                (&limited, "Limited { group: TaskGroup {"),
                (&limited.named("b"), "LimitedNamed { name: \"b\", .. }"),
                (
                    &group.spawner().limit(3),
                    "LimitedSpawner { spawner: Spawner {",
                ),
                (&group.spawner().guard()?, "Guard { .. }"),
                (&completed, "AsCompleted { left: 1, .. }"),
                (&root(), "Root { orphans: "),
            ]);
            completed.finish().await;
            let started = group.start(async |ready: Ready<()>| {
                shows(&[(&ready, "Ready { .. }")]);
                ready.set(());
            });
            started.await.expect("it was ready");
            drop(background);
            Ok(())
        });
        done.await.expect("nobody fails");

        let seven = || ready(Ok::<_, BoxError>(7));
        let one = Slots::new(1);
        let group = OwnedGroup::<BoxError>::with_name("kept");
        shows(&[(&group, "OwnedGroup { name: Some(\"kept\"), state: ")]);
        let limited = group.limit(one);
        let held = limited.try_spawn(pending::<()>()).expect("a slot is free");
        let full = limited.try_spawn(seven()).expect_err("none is free");
        says(&[(&full, "the limit is reached")]);
        shows(&[(&full, "Full")]);
        assert!(full.is_full() && full.into_inner().await.unwrap() == 7);
        drop(held);
        group.close();
        let closed = limited.try_spawn(seven()).expect_err("it is closed");
        says(&[(&closed, "the group is closed")]);
        shows(&[(&closed, "Closing(SpawnError { reason: Closed, .. })")]);
        assert!(!closed.is_full() && closed.into_inner().await.unwrap() == 7);
        group.cancel();
        let refused = group.try_spawn(seven()).expect_err("it is cancelled");
        says(&[(&refused, "the group was cancelled on request")]);
        let report = group.shutdown(Duration::ZERO).await;
        shows(&[(&report, "Report { cancelled: Some(Requested")]);

        let report = OwnedGroup::<BoxError>::new().wait().await;
        says(&[(&report, "task group ended")]);
        let error = BoxError::from("text").into_inner();
        says(&[(&error, "text")]);
    });
}

#[test]
fn limits_show_their_room_and_who_waits() {
    paused(async || {
        let limiter = Limiter::new(3);
        let permit = limiter.try_acquire_many(2).expect("room");
        shows(&[
            (
                &limiter,
                "Limiter { limit: 3, in_flight: 2, waiting: 0, is_adaptive: false }",
            ),
            (&limiter.acquire_many(2), "Acquire { n: 2, .. }"),
            (&permit, "Permit { n: 2, .. }"),
        ]);
        shows(&[(&permit.into_owned(), "OwnedPermit { n: 2, .. }")]);

        let keyed = KeyedLimiter::new(1);
        let permit = keyed.try_acquire('a').expect("room");
        shows(&[
            (&keyed, "KeyedLimiter { keys: 1, .. }"),
            (&permit, "KeyedPermit { .. }"),
        ]);

        let rate = RateLimiter::new(Rate::per_second(1));
        shows(&[
            (&rate, "RateLimiter { waiting: 0, .. }"),
            (
                &rate.acquire(),
                "AcquireRate { n: 1, deadline: Deadline::NEVER, .. }",
            ),
        ]);
        let (asked, burst) = (4, 2);
        says(&[
            (
                &RateError::Cancelled(CancelReason::Handle),
                "the wait was cancelled through its handle",
            ),
            (
                &RateError::InsufficientCapacity { asked, burst },
                "4 never go through together, with a burst of 2",
            ),
            (
                &RateError::TooLate { at: None },
                "the rate does not allow it in time",
            ),
        ]);
    });
}

#[test]
fn queues_show_their_state_and_ask_nothing_of_the_items() {
    single_thread(async || {
        struct Plain;
        let (sender, mut receiver) = Queue::bounded(2).weight(|_: &u8| 1).build();
        shows(&[
            (
                &Queue::<Plain>::bounded(1),
                "Queue { capacity: Limit(1), overflow: Wait, .. }",
            ),
            (&sender.try_reserve().expect("room"), "Permit { weight: 1 }"),
            (
                &sender.reserve_owned(1).await.expect("room"),
                "OwnedPermit { weight: 1 }",
            ),
            (
                &sender.clone().into_sink(),
                "SendSink { sender: Some(Sender {",
            ),
        ]);
        says(&[(
            &receiver.try_recv().expect_err("empty"),
            "the queue is empty",
        )]);
        sender.try_send(7).expect("room");
        let mut delivery = receiver.try_deliver().expect("an item");
        *delivery += 1;
        shows(&[(&delivery, "Delivery { item: Some(8), attempt: 1, .. }")]);
        delivery.done();

        for (error, shown, said) in [
            (SendError::Full(Plain), "Full(..)", "the queue is full"),
            (
                SendError::Closed(Plain),
                "Closed(..)",
                "the queue is closed",
            ),
            (
                SendError::TimedOut(Plain),
                "TimedOut(..)",
                "no room in the queue in time",
            ),
            (
                SendError::TooHeavy(Plain),
                "TooHeavy(..)",
                "the item is too heavy",
            ),
        ] {
            shows(&[(&error, shown)]);
            says(&[(&error, said)]);
            assert_eq!(error.is_closed(), said.ends_with("closed"));
        }

        // Ends are told apart by their causes.
        sender.close_with("over");
        let end = receiver.try_recv().expect_err("closed");
        says(&[(&end, "the queue has ended")]);
        assert_eq!(end.source().expect("a cause").to_string(), "over");
        assert!(TryRecvError::Empty.source().is_none());
        assert_eq!(end, receiver.try_recv().expect_err("closed"));
        let (sender, mut receiver) = queue::bounded::<u8>(1);
        sender.close();
        assert_ne!(end, receiver.try_recv().expect_err("closed"));
    });
}

#[test]
fn retries_show_how_far_they_are() {
    paused(async || {
        let policy = Retry::constant(SECOND).jitter(Jitter::None).attempts(2);
        let fail = || async |_: Attempt| Err::<(), _>("no");
        let mut calls = 0;
        let with = policy.retry_with(&mut calls, async |calls: &mut i32, _| {
            *calls += 1;
            Ok::<_, &str>(*calls)
        });
        let with = with.until(|calls| *calls == 2);
        shows(&[
            (
                &RetryBudget::new(0.5).capacity(8),
                "RetryBudget { ratio: 0.5, capacity: 8,",
            ),
            (&policy.retry(fail()), "Run { policy: Retry {"),
            (&with, "RunWith { policy: Retry {"),
            (&policy.tries::<&str>(), "Tries { attempts: 0, .. }"),
            (
                &policy.retry(fail()).into_future(),
                "RetryFuture { attempts: 0, .. }",
            ),
            (&Latency::default(), "Latency { p50: None, p95: None, .. }"),
        ]);
        assert_eq!(with.run().await.ok(), Some(2));
        let error = policy.retry(fail()).await.expect_err("it fails");
        shows(&[
            (
                &error,
                "RetryError { reason: AttemptsExhausted, attempts: 2, elapsed: 1s,",
            ),
            (&error.source().expect("the last one"), "\"no\""),
        ]);
        let hedge = Hedge::after(SECOND);
        let calls = Cell::new(0);
        let copies = || hedge.run(|_| ready(Err::<(), _>(calls.replace(1))));
        shows(&[
            (&copies(), "HedgeRun { hedge: Hedge {"),
            (
                &copies().into_future(),
                "HedgeFuture { started: 0, running: 0, .. }",
            ),
        ]);
        let error = copies().await.expect_err("it fails");
        shows(&[(&error, "HedgeError { reason: AttemptsExhausted, copies: ")]);
        says(&[
            (
                &RetryReason::HintTooLong,
                "asked to wait longer than allowed",
            ),
            (
                &Retry::decorrelated(SECOND)
                    .try_jitter(Jitter::Full)
                    .expect_err("it has its own"),
                "Full is not a jitter for this delay",
            ),
        ]);
    });
}

#[test]
fn fan_outs_and_workers_show_their_options_and_counts() {
    single_thread(async || {
        let progress = Progress::default();
        let total = fan_out([1, 2]).progress(&progress);
        total
            .for_each(async |_| Ok::<_, BoxError>(()))
            .await
            .expect("nobody fails");
        shows(&[
            (
                &progress,
                "Progress { done: 2, failed: 0, cancelled: 0, in_flight: 0, total: Some(2) }",
            ),
            (&fan_out([1]).local(), "LocalFanOut { options: "),
            (
                &Workers::<BoxError>::new(3),
                "Workers { count: 3, timeout: ",
            ),
        ]);
        let results = fan_out([1]).results(|n| ready(Ok::<_, BoxError>(n)));
        shows(&[(&results, "Results { ready: 0, has_ended: false, .. }")]);
    });
}

#[test]
fn supervisors_and_their_children_show_how_they_are() {
    paused(async || {
        let child = || {
            Child::permanent("db", async |run: Run| {
                shows(&[(&run, "Run { number: 1, .. }")]);
                pending::<Result<(), BoxError>>().await
            })
        };
        let mut supervisor = Supervisor::default().name("all");
        let handle = supervisor.add(child());
        let slow = Child::permanent("slow", |_: Run| pending::<Result<(), BoxError>>());
        let slow = supervisor.add(slow.ready_within(SECOND));
        assert_eq!((handle.name(), slow.name()), ("db", "slow"));
        shows(&[
            (&child(), "Child { name: \"db\", grace: "),
            (
                &supervisor,
                "Supervisor { name: Some(\"all\"), counts: Counts {",
            ),
            (&supervisor.handle(), "SupervisorHandle { counts: Counts {"),
            (
                &handle,
                "ChildHandle { name: \"db\", state: Waiting, runs: 0, .. }",
            ),
        ]);
        let everyone = supervisor.handle();
        let mut run = Box::pin(supervisor.run());
        for _ in 0..9 {
            assert!((&mut run).now_or_never().is_none());
            tokio::task::yield_now().await;
        }
        let states = [handle.state(), slow.state()];
        assert_eq!(states, [ChildState::Running, ChildState::Starting]);
        everyone.shut_down();
        assert!((&mut run).now_or_never().is_none());
        assert_eq!(slow.state(), ChildState::Stopping);
        run.await.expect("it was told to");
        let periodic = Periodic::rate(SECOND);
        shows(&[
            (&periodic, "Periodic { pace: "),
            (&periodic.handle(), "PeriodicHandle { .. }"),
        ]);
    });
}

#[test]
fn the_rest_shows_what_it_was_made_with() {
    paused(async || {
        let flights = SingleFlight::<u8, (), BoxError>::default();
        shows(&[
            (&Deadline::NEVER, "Deadline::NEVER"),
            (&Deadline::after(SECOND), "Deadline(Instant {"),
            (&timeout(SECOND, ready(())), "Timeout { limit: "),
            (&shield(SECOND, ready(())), "Shield { bound: 1s, .. }"),
            (
                &Process::default().name("p"),
                "Process { name: Some(\"p\"), grace: ",
            ),
            (&flights, "SingleFlight { flying: 0, .. }"),
            (&Watchdog::default(), "Watchdog {"),
            (&Smallest::default(), "Smallest"),
            (&FlightError::Failed(1.into()), "Failed(1)"),
            (
                &FlightError::<u8>::Cancelled(CancelReason::Handle),
                "Cancelled(Handle)",
            ),
            (&FlightError::<u8>::Circle.clone(), "Circle"),
        ]);
        says(&[
            (
                &FlightError::<u8>::Circle,
                "the shared call waits for itself",
            ),
            (
                &FlightError::<u8>::Cancelled(CancelReason::Handle),
                "the shared call was cancelled through its handle",
            ),
        ]);
        assert_eq!(FlightError::Failed(1.into()).error(), Some(&1));
        assert_eq!(FlightError::<u8>::Circle.error(), None);
    });
}
