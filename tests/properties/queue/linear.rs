//! Histories of real threads on one queue, and whether there is an order of their calls, each somewhere between its begin
//! and its end, in which a plain queue gives the same answers (Wing and Gong's search, with Lowe's memory of what was seen).

use std::collections::{HashSet, VecDeque};
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex};
use std::task::{Context, Poll, Waker};

use ringfence::queue::{Delivery, Queue, Receiver, Sender, TryRecvError};

use crate::{cases, figures, seed};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    TrySend(u32),
    /// Waits for some polls, and is dropped then.
    Send(u32),
    TryRecv,
    Recv,
    TryDeliver,
    Done(u32),
    GiveBack(u32),
    Close,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Ok,
    Full,
    Closed,
    GaveUp,
    Got(u32),
    Empty,
    Ended,
}

#[derive(Clone, Copy, Debug)]
struct Op {
    call: Call,
    answer: Answer,
    begin: usize,
    end: usize,
}

/// A queue as one would explain it, for one thread.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Plain {
    /// With the order in which they were sent.
    items: VecDeque<(usize, u32)>,
    out: Vec<(usize, u32)>,
    sent: usize,
    is_closed: bool,
}

impl Plain {
    /// Carries out a call, if that is its answer. So many others wait for room, and for items: something may be set aside
    /// for each of them.
    fn apply(&mut self, op: &Op, capacity: usize, sends: usize, recvs: usize) -> bool {
        let room = capacity.saturating_sub(self.items.len() + self.out.len());
        let is_over = self.is_closed && self.items.is_empty() && self.out.is_empty();
        match (op.call, op.answer) {
            (_, Answer::GaveUp) => true,
            (Call::TrySend(item) | Call::Send(item), Answer::Ok) => {
                self.items.push_back((self.sent, item));
                self.sent += 1;
                !self.is_closed && room > 0
            }
            (Call::TrySend(_), Answer::Full) => !self.is_closed && room <= sends,
            (Call::TrySend(_) | Call::Send(_), Answer::Closed) => self.is_closed,
            (Call::TryRecv | Call::Recv, Answer::Got(item)) => {
                self.items.pop_front().is_some_and(|(_, next)| next == item)
            }
            (Call::TryDeliver, Answer::Got(item)) => {
                let next = self.items.pop_front();
                self.out.extend(next);
                next.is_some_and(|(_, next)| next == item)
            }
            // At the end nothing is set aside.
            (Call::TryRecv | Call::TryDeliver, Answer::Empty) => {
                let is_last = self.is_closed && self.out.is_empty();
                let promised = if is_last { 0 } else { recvs };
                !is_over && self.items.len() <= promised
            }
            (Call::TryRecv | Call::TryDeliver | Call::Recv, Answer::Ended) => is_over,
            (Call::Done(item) | Call::GiveBack(item), Answer::Ok) => {
                let Some(at) = self.out.iter().position(|(_, out)| *out == item) else {
                    return false;
                };
                let back = self.out.remove(at);
                if matches!(op.call, Call::GiveBack(_)) {
                    let place = self.items.partition_point(|other| *other < back);
                    self.items.insert(place, back);
                }
                true
            }
            (Call::Close, Answer::Ok) => {
                self.is_closed = true;
                true
            }
            _ => false,
        }
    }
}

/// Looks for an order of the calls that explains all answers.
fn is_linearizable(ops: &[Op], capacity: usize) -> bool {
    fn search(
        ops: &[Op],
        capacity: usize,
        done: u64,
        state: &Plain,
        seen: &mut HashSet<(u64, Plain)>,
    ) -> bool {
        let left = || (0..ops.len()).filter(move |at| done & (1 << at) == 0);
        let Some(horizon) = left().map(|at| ops[at].end).min() else {
            return true;
        };
        if !seen.insert((done, state.clone())) {
            return false;
        }
        left().filter(|at| ops[*at].begin < horizon).any(|at| {
            let op = &ops[at];
            let waits = |is: fn(Call) -> bool| {
                let others = left().filter(|other| *other != at);
                let at_once = others.filter(|other| ops[*other].begin < op.end);
                at_once.filter(|other| is(ops[*other].call)).count()
            };
            let sends = waits(|call| matches!(call, Call::Send(_)));
            let recvs = waits(|call| call == Call::Recv);
            let mut next = state.clone();
            next.apply(op, capacity, sends, recvs)
                && search(ops, capacity, done | 1 << at, &next, seen)
        })
    }
    assert!(ops.len() <= 64, "the set of calls is one word");
    search(ops, capacity, 0, &Plain::default(), &mut HashSet::new())
}

/// A generator that is good enough to choose calls.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % bound
    }
}

/// Polls a few times, with a look at what the others do in between.
fn poll<F: Future>(future: F, times: u64) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..times {
        let waker = Waker::noop();
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(waker)) {
            return Some(output);
        }
        std::thread::yield_now();
    }
    None
}

struct Thread<'a> {
    dice: Dice,
    sender: Sender<u32>,
    receiver: Receiver<u32>,
    held: Vec<Delivery<u32>>,
    clock: &'a AtomicUsize,
    next: u32,
}

impl Thread<'_> {
    fn item(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    fn choose(&mut self) -> Call {
        match self.dice.below(24) {
            0..5 => Call::TrySend(self.item()),
            5..9 => Call::Send(self.item()),
            9..13 => Call::TryRecv,
            13..17 => Call::Recv,
            17..20 => Call::TryDeliver,
            20 if self.dice.below(3) == 0 => Call::Close,
            _ => match self.held.first().map(|held| **held) {
                Some(item) if self.dice.below(2) == 0 => Call::Done(item),
                Some(item) => Call::GiveBack(item),
                None => Call::TryDeliver,
            },
        }
    }

    fn step(&mut self) -> Op {
        let call = self.choose();
        let polls = 1 + self.dice.below(4);
        let begin = self.clock.fetch_add(1, Ordering::SeqCst);
        let answer = self.carry_out(call, polls);
        let end = self.clock.fetch_add(1, Ordering::SeqCst);
        Op {
            call,
            answer,
            begin,
            end,
        }
    }

    fn carry_out(&mut self, call: Call, polls: u64) -> Answer {
        let sent = |result: Result<(), _>| match result {
            Ok(()) => Answer::Ok,
            Err(ringfence::queue::SendError::Full(_)) => Answer::Full,
            Err(_) => Answer::Closed,
        };
        let failed = |error| match error {
            TryRecvError::Empty => Answer::Empty,
            _ => Answer::Ended,
        };
        match call {
            Call::TrySend(item) => sent(self.sender.try_send(item)),
            Call::Send(item) => poll(self.sender.send(item), polls).map_or(Answer::GaveUp, sent),
            Call::TryRecv => self.receiver.try_recv().map_or_else(failed, Answer::Got),
            Call::Recv => match poll(self.receiver.recv(), polls) {
                Some(Ok(item)) => Answer::Got(item),
                Some(Err(_)) => Answer::Ended,
                None => Answer::GaveUp,
            },
            Call::TryDeliver => match self.receiver.try_deliver() {
                Ok(delivery) => {
                    let item = *delivery;
                    self.held.push(delivery);
                    Answer::Got(item)
                }
                Err(error) => failed(error),
            },
            Call::Done(_) => {
                self.held.remove(0).done();
                Answer::Ok
            }
            Call::GiveBack(_) => {
                drop(self.held.remove(0));
                Answer::Ok
            }
            Call::Close => {
                self.receiver.close();
                Answer::Ok
            }
        }
    }
}

/// One history: so many threads, a few calls each.
fn history(seed: u64, capacity: usize, threads: u64) -> Vec<Op> {
    const CALLS: usize = 7;
    let (sender, receiver) = Queue::bounded(capacity).redeliver(u32::MAX).build();
    let (clock, start) = (AtomicUsize::new(0), Barrier::new(threads as usize));
    let ops = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for number in 0..threads {
            let mut thread = Thread {
                dice: Dice(seed.wrapping_mul(31).wrapping_add(number)),
                sender: sender.clone(),
                receiver: receiver.clone(),
                held: Vec::new(),
                clock: &clock,
                next: 1_000 * number as u32,
            };
            let (start, ops) = (&start, &ops);
            scope.spawn(move || {
                start.wait();
                let mine: Vec<Op> = (0..CALLS).map(|_| thread.step()).collect();
                ops.lock().expect("no poison").extend(mine);
                // What it still holds is not given back before all have ended.
                start.wait();
            });
        }
    });
    ops.into_inner().expect("no poison")
}

#[test]
fn histories_of_threads_are_linearizable() {
    let seed = seed();
    let mut calls = 0;
    let mut overlaps = 0;
    let mut answers = [0_usize; 4];
    for round in 0..u64::from(cases(1_500)) {
        let (capacity, threads) = (1 + round as usize % 3, 2 + round % 3);
        let ops = history(seed.wrapping_add(round), capacity, threads);
        assert!(
            is_linearizable(&ops, capacity),
            "seed {seed}, round {round}, capacity {capacity}: no order explains {ops:#?}"
        );
        calls += ops.len();
        for op in &ops {
            let inside = ops
                .iter()
                .filter(|other| other.begin < op.begin && op.begin < other.end);
            overlaps += usize::from(inside.count() > 0);
            match op.answer {
                Answer::Full => answers[0] += 1,
                Answer::GaveUp => answers[1] += 1,
                Answer::Ended => answers[2] += 1,
                Answer::Got(_) => answers[3] += 1,
                _ => {}
            }
        }
    }
    assert!(answers.iter().all(|count| *count > 0), "{answers:?}");
    figures(format_args!(
        "{calls} calls, {overlaps} begun within another; full, given up, ended, got: {answers:?}"
    ));
}

#[test]
fn the_checker_sees_what_no_order_explains() {
    let op = |call, answer, begin, end| Op {
        call,
        answer,
        begin,
        end,
    };
    let one = op(Call::TrySend(1), Answer::Ok, 0, 1);
    let two = op(Call::TrySend(2), Answer::Ok, 2, 3);
    let got = |item, begin| op(Call::TryRecv, Answer::Got(item), begin, begin + 1);
    assert!(is_linearizable(&[one, two, got(1, 4), got(2, 6)], 2));
    // Out of order; twice; lost; overtaken; more than there is room for; full for no reason.
    assert!(!is_linearizable(&[one, two, got(2, 4), got(1, 6)], 2));
    assert!(!is_linearizable(&[one, got(1, 4), got(1, 6)], 2));
    let empty = op(Call::TryRecv, Answer::Empty, 4, 5);
    assert!(!is_linearizable(&[one, empty], 2));
    assert!(!is_linearizable(&[one, two], 1));
    let full = op(Call::TrySend(2), Answer::Full, 4, 5);
    assert!(!is_linearizable(&[one, full], 2));
    // With somebody who waits at that time, it may be set aside.
    let waits = op(Call::Recv, Answer::GaveUp, 2, 7);
    assert!(is_linearizable(&[one, waits, empty], 2));
    // Two at the same time may be in any order.
    let late = op(Call::TrySend(2), Answer::Ok, 0, 9);
    assert!(is_linearizable(&[one, late, got(2, 10), got(1, 12)], 2));
}
