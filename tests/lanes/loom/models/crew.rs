//! The door of a fan-out: workers that come, find the input taken, idle, wait inside, are called, stop and leave.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use loom::sync::Mutex;
use loom::thread;

use super::{Parker, explore_within};
use crate::fan_out::crew::Next;
use crate::fan_out::door::{Door, Visit};
use crate::fan_out::hand::Toll;
use crate::fan_out::input::Input;
use crate::fan_out::intake::Intake;
use crate::sync::{Arc, AtomicU64, Ordering, PlainArc};

/// Yields so many numbers. Before the one at `gap`, it is pending until somebody opens the gate.
struct Numbers {
    left: usize,
    gap: Option<(usize, PlainArc<Gap>)>,
}

#[derive(Default)]
struct Gap(Mutex<(bool, Option<Waker>)>);

impl Gap {
    fn open(&self) {
        let waker = {
            let mut gap = self.0.lock().unwrap();
            gap.0 = true;
            gap.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Input for Numbers {
    type Item = usize;

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<usize>> {
        if let Some((_, gap)) = self.gap.as_ref().filter(|(at, _)| *at == self.left) {
            let mut gap = gap.0.lock().unwrap();
            if !gap.0 {
                gap.1 = Some(cx.waker().clone());
                return Poll::Pending;
            }
        }
        Poll::Ready(match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Some(left)
            }
            None => None,
        })
    }
}

type Model = Arc<Fan>;

struct Fan {
    door: Door<Numbers, usize>,
    done: AtomicU64,
    /// How often somebody had to wait.
    waits: AtomicU64,
    /// Those who were started, and are to be run by whoever started them: a thread each.
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
}

fn fan(n: usize, limit: usize, bound: usize, gap: Option<(usize, PlainArc<Gap>)>) -> Model {
    fan_with(false, n, limit, bound, gap)
}

/// The same; with steps, each item is in hand for a moment, as if it had a key, a rate or permits to wait for.
fn fan_with(
    has_steps: bool,
    n: usize,
    limit: usize,
    bound: usize,
    gap: Option<(usize, PlainArc<Gap>)>,
) -> Model {
    let intake = Intake::new(Numbers { left: n, gap }, None, bound);
    Arc::new(Fan {
        door: Door::new(intake, limit, has_steps, Toll::default(), true),
        done: AtomicU64::new(0),
        waits: AtomicU64::new(0),
        threads: Mutex::new(Vec::new()),
    })
}

/// What a worker is here: it takes items until there are none, and calls the next as it goes.
fn work(fan: &Model) -> bool {
    let mut visit = Visit::new();
    let parker = Parker::new();
    loop {
        let mut take = poll_fn(|cx| fan.door.poll_next(&mut visit, &mut None, cx));
        let taken = loop {
            if let Poll::Ready(taken) = parker.poll(&mut take) {
                break taken;
            }
            fan.waits.fetch_add(1, Ordering::Relaxed);
            parker.wait();
        };
        let Some((_, next)) = taken else {
            return fan.door.leave(&mut visit);
        };
        match next {
            Next::Nothing => {}
            Next::Wake(waker) => waker.wake(),
            Next::Start => start(fan),
        }
        fan.done.fetch_add(1, Ordering::Relaxed);
    }
}

fn start(fan: &Model) {
    let own = fan.clone();
    let started = thread::spawn(move || {
        work(&own);
    });
    fan.threads.lock().unwrap().push(started);
}

/// Waits for all who were started.
fn join(fan: &Model) {
    loop {
        let next = fan.threads.lock().unwrap().pop();
        match next {
            Some(thread) => thread.join().unwrap(),
            None => return,
        }
    }
}

fn waited(fan: &Fan) -> bool {
    fan.waits.load(Ordering::Relaxed) > 0
}

#[test]
fn two_workers_x_the_end() {
    explore_within(3, &["first out last", "second out last"], |seen| {
        let fan = fan(2, 2, usize::MAX, None);
        let was_last = work(&fan);
        join(&fan);
        assert_eq!(fan.done.load(Ordering::Relaxed), 2);
        assert!(fan.door.why_torn().is_none());
        seen.note(if was_last {
            "first out last"
        } else {
            "second out last"
        });
    });
}

#[test]
fn a_worker_that_finds_the_input_taken_x_one_that_gives_it_back() {
    explore_within(3, &["idle", "at once"], |seen| {
        let fan = fan(3, 2, usize::MAX, None);
        work(&fan);
        join(&fan);
        assert_eq!(fan.done.load(Ordering::Relaxed), 3);
        seen.note(if waited(&fan) { "idle" } else { "at once" });
    });
}

#[test]
fn one_with_an_item_in_hand_x_one_that_looks_for_the_next() {
    explore_within(3, &["idle", "at once"], |seen| {
        let fan = fan_with(true, 2, 2, usize::MAX, None);
        work(&fan);
        join(&fan);
        assert_eq!(fan.done.load(Ordering::Relaxed), 2);
        assert!(fan.door.why_torn().is_none());
        seen.note(if waited(&fan) { "idle" } else { "at once" });
    });
}

#[test]
fn one_inside_x_one_idle_x_the_input_with_steps() {
    one_inside(true);
}

#[test]
fn one_inside_x_one_idle_x_the_input() {
    one_inside(false);
}

fn one_inside(has_steps: bool) {
    explore_within(3, &["waited", "never waited"], move |seen| {
        let gap = PlainArc::<Gap>::default();
        let fan = fan_with(has_steps, 2, 2, usize::MAX, Some((1, gap.clone())));
        let opener = thread::spawn(move || gap.open());
        work(&fan);
        join(&fan);
        opener.join().unwrap();
        assert_eq!(fan.done.load(Ordering::Relaxed), 2);
        seen.note(if waited(&fan) {
            "waited"
        } else {
            "never waited"
        });
    });
}

#[test]
fn deliver_x_a_worker_that_finds_it_full() {
    explore_within(3, &["full", "in time"], |seen| {
        let fan = fan(2, 1, 1, None);
        let taker = thread::spawn({
            let fan = fan.clone();
            move || {
                fan.door.deliver(1);
                fan.door.deliver(1); // for the look at the end
            }
        });
        work(&fan);
        taker.join().unwrap();
        assert_eq!(fan.done.load(Ordering::Relaxed), 2);
        seen.note(if waited(&fan) { "full" } else { "in time" });
    });
}

#[test]
fn deliver_x_two_workers_that_find_it_full() {
    explore_within(3, &["full", "in time"], |seen| {
        let fan = fan(2, 2, 1, None);
        let taker = thread::spawn({
            let fan = fan.clone();
            move || fan.door.deliver(2) // once: another would wake whoever was forgotten
        });
        work(&fan);
        join(&fan);
        taker.join().unwrap();
        assert_eq!(fan.done.load(Ordering::Relaxed), 2);
        seen.note(if waited(&fan) { "full" } else { "in time" });
    });
}

#[test]
fn stop_x_workers_that_wait() {
    explore_within(3, &["none", "one", "two"], |seen| {
        let gap = PlainArc::<Gap>::default();
        // The gap before the second is never opened.
        let fan = fan(2, 2, usize::MAX, Some((1, gap)));
        let stopper = thread::spawn({
            let fan = fan.clone();
            move || fan.door.stop(None)
        });
        work(&fan);
        join(&fan);
        stopper.join().unwrap();
        let done = fan.done.load(Ordering::Relaxed);
        assert!(done <= 1 && fan.door.why_torn().is_some());
        seen.note(match (done, fan.waits.load(Ordering::Relaxed)) {
            (0, _) => "none",
            (_, 0 | 1) => "one",
            _ => "two",
        });
    });
}

/// As a task that is dropped where it is parked.
#[test]
fn a_worker_that_is_dropped_x_one_that_waits() {
    explore_within(3, &["before", "after"], |seen| {
        let gap = PlainArc::<Gap>::default();
        let fan = fan(2, 2, usize::MAX, Some((1, gap)));
        let mut visit = Visit::new();
        let parker = Parker::new();
        let mut take = poll_fn(|cx| fan.door.poll_next(&mut visit, &mut None, cx));
        let Poll::Ready(Some((_, Next::Start))) = parker.poll(&mut take) else {
            unreachable!("the first item, and another worker")
        };
        start(&fan);
        // It would go on to the next, where it has to wait, unless the other one is there already.
        let polled = Pin::new(&mut take).poll(&mut Context::from_waker(&Waker::from(parker)));
        assert!(polled.is_pending());
        let waits = fan.waits.load(Ordering::Relaxed);
        fan.door.stop(None);
        fan.door.leave(&mut visit);
        join(&fan);
        assert!(fan.door.why_torn().is_some());
        seen.note(if waits == 0 { "before" } else { "after" });
    });
}
