//! Loans: an item takes what is lent, or permits of its own, whichever comes first, and leaves nothing of the other behind.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use loom::thread;

use super::{explore, run};
use crate::fan_out::hand::{Hand, Pass, Toll};
use crate::fan_out::intake::Ticket;
use crate::limit::concurrency::Limiter;
use crate::limit::loan::Offer;
use crate::sync::PlainArc;

/// An item on its way, which gives up when it is dropped. It ends with what it got.
struct Passing {
    toll: PlainArc<Toll>,
    hand: Hand<()>,
}

impl Future for Passing {
    type Output = Pass;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Pass> {
        let (me, mut pass) = (&mut *self, Pass::default());
        let polled = me.hand.poll(&me.toll, &mut pass, cx);
        polled.map(|passed| {
            passed.unwrap();
            pass
        })
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        drop(self.hand.abandon(&self.toll));
    }
}

/// The way to a limiter, inside an item that lends what it has of it.
fn toll(limiter: &Limiter) -> PlainArc<Toll> {
    let mut toll = Toll::new(None, Some(limiter.core().clone()));
    let mut offer = Some(Offer::new(limiter.core()));
    Offer::during(&mut offer, || toll.borrow_from(None));
    PlainArc::new(toll)
}

fn passing(toll: &PlainArc<Toll>) -> Passing {
    let mut hand = Hand::new();
    hand.put(Ticket {
        index: 0,
        item: (),
        key: None,
        weight: 1,
    });
    Passing {
        toll: toll.clone(),
        hand,
    }
}

/// Nothing is out, nobody waits: two can pass, one with the loan and one with a permit.
fn at_rest(limiter: &Limiter, toll: &PlainArc<Toll>) {
    assert_eq!((limiter.in_flight(), limiter.waiting()), (0, 0));
    let mut cx = Context::from_waker(Waker::noop());
    let mut both = [passing(toll), passing(toll)];
    let passed = both.each_mut().map(|it| Pin::new(it).poll(&mut cx));
    assert!(passed.iter().all(Poll::is_ready));
    assert_eq!(limiter.in_flight(), 1);
}

#[test]
fn a_loan_that_comes_back_x_a_permit_that_comes_back() {
    explore(&["at once", "after a wait"], |seen| {
        let limiter = Limiter::new(1);
        let toll = toll(&limiter);
        let own = limiter.try_acquire().unwrap().into_owned();
        let (lent, _) = run(passing(&toll));
        let other = thread::spawn({
            let toll = toll.clone();
            move || run(passing(&toll)).1
        });
        let giver = thread::spawn(move || drop(own));
        drop(lent);
        let polls = other.join().unwrap();
        giver.join().unwrap();
        at_rest(&limiter, &toll);
        seen.note(if polls == 1 {
            "at once"
        } else {
            "after a wait"
        });
    });
}

#[test]
fn a_loan_that_comes_back_x_two_that_wait() {
    explore(&["both"], |seen| {
        let limiter = Limiter::new(1);
        let toll = toll(&limiter);
        let own = limiter.try_acquire().unwrap().into_owned();
        let (lent, _) = run(passing(&toll));
        let others = [(); 2].map(|()| {
            let toll = toll.clone();
            thread::spawn(move || drop(run(passing(&toll))))
        });
        drop(lent);
        others.into_iter().for_each(|other| other.join().unwrap());
        drop(own);
        at_rest(&limiter, &toll);
        seen.note("both");
    });
}

#[test]
fn a_loan_that_comes_back_x_one_that_gives_up() {
    explore(&["passed", "gave up"], |seen| {
        let limiter = Limiter::new(1);
        let toll = toll(&limiter);
        let own = limiter.try_acquire().unwrap().into_owned();
        let (lent, _) = run(passing(&toll));
        let other = thread::spawn({
            let toll = toll.clone();
            move || {
                let mut cx = Context::from_waker(Waker::noop());
                let mut passing = passing(&toll);
                (0..2).any(|_| Pin::new(&mut passing).poll(&mut cx).is_ready())
            }
        });
        let giver = thread::spawn(move || drop(own));
        drop(lent);
        let has_passed = other.join().unwrap();
        giver.join().unwrap();
        at_rest(&limiter, &toll);
        seen.note(if has_passed { "passed" } else { "gave up" });
    });
}
