//! The engine of the local form.
//!
//! Lanes instead of workers: each holds the future of one item, in a place that the next item uses again, and has a waker of
//! its own, so that only what was woken is polled.
//!
//! X1. A lane is made when all others are busy and there is an item for it. X2. Its bell is rung once until it is polled
//! again. X3. Nothing here runs unless the caller is polled, so nothing here yields results before the end: what uses them
//! runs between the items' polls. X4. When it ends early, all lanes are dropped before it comes back.

use std::future::Future;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::task::{Context, Poll, Wake, Waker, ready};

use crate::calm::{Calm, Each, calmly};
use crate::fan_out::FanOut;
use crate::fan_out::hand::{Hand, Pass, Toll};
use crate::fan_out::input::Input;
use crate::fan_out::intake::{Intake, Taken, Ticket};
use crate::fan_out::lanes::Lanes;
use crate::fan_out::output::ItemOutput;
use crate::fan_out::pace::Pace;
use crate::fan_out::progress::{End, Progress};
use crate::limit::loan::Offer;
use crate::observe::CancelReason;
use crate::sync::{AtomicU64, Lock, Ordering, PlainArc};

/// Which lanes of a group of 64 were woken.
struct Block {
    number: usize,
    rung: AtomicU64,
    board: PlainArc<Lock<Board>>,
}

/// Which blocks have somebody woken.
struct Board {
    rung: Vec<usize>,
    /// The caller's, while it is away. Shared, so that nobody clones it under the lock.
    waker: Option<PlainArc<Waker>>,
    is_away: bool,
}

/// The waker of one lane.
struct Bell {
    block: PlainArc<Block>,
    bit: u32,
}

impl Wake for Bell {
    fn wake(self: PlainArc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &PlainArc<Self>) {
        let block = &*self.block;
        // Release pairs with the Acquire of the one that collects: it polls the lane after what was done before the wake.
        if block.rung.fetch_or(1 << self.bit, Ordering::AcqRel) != 0 {
            return; // X2
        }
        let waker = {
            let mut board = block.board.lock();
            board.rung.push(block.number);
            if std::mem::take(&mut board.is_away) {
                board.waker.clone()
            } else {
                None
            }
        };
        if let Some(waker) = waker {
            waker.wake_by_ref();
        }
    }
}

/// The way of items that have a key, a rate or permits to wait for.
struct Steps<T> {
    hand: Hand<T>,
    toll: Toll,
    lanes: Each<Lanes<Ticket<T>>>,
}

impl<T> Drop for Steps<T> {
    fn drop(&mut self) {
        drop(self.hand.abandon(&self.toll));
    }
}

struct Lane<Fut> {
    future: Pin<Box<Option<Fut>>>,
    pass: Pass,
    /// While its item has permits.
    offer: Option<PlainArc<Offer>>,
    waker: Waker,
}

/// The lanes, and what feeds them.
pub(crate) struct Engine<S, T, F, Fut> {
    // Dropped first: what runs may use what the function holds.
    lanes: Vec<Lane<Fut>>,
    free: Vec<usize>,
    blocks: Vec<PlainArc<Block>>,
    board: PlainArc<Lock<Board>>,
    rung: Vec<usize>,
    limit: usize,
    /// The future of an item that has ended is being dropped.
    is_ending: bool,
    pace: Pace,
    progress: Option<Progress>,
    intake: Intake<S, T>,
    steps: Option<Box<Steps<T>>>,
    /// Why nothing more is taken, though there may be more.
    cut: Option<CancelReason>,
    may_have_more: bool,
    function: F,
}

pub(crate) type Value<Fut> = <<Fut as Future>::Output as ItemOutput>::Value;
pub(crate) type Error<Fut> = <<Fut as Future>::Output as ItemOutput>::Error;
/// What becomes of the result of an item; a break ends it all.
pub(crate) type Step<B, C = ()> = ControlFlow<B, C>;

impl<S, T, F, Fut> Engine<S, T, F, Fut>
where
    S: Input<Item = T>,
    F: FnMut(T) -> Fut,
    Fut: Future<Output: ItemOutput>,
{
    pub(crate) fn new(mut options: FanOut<S, T>, function: F) -> Self {
        if let Some(progress) = &options.progress {
            progress.expect(options.source.size_hint());
        }
        let (asks, mut toll) = options.steps();
        let place = crate::context::current();
        toll.borrow_from(place.as_ref().map(|(core, serial)| (&**core, *serial)));
        let has_steps = asks.is_some() || !toll.is_free();
        Self {
            lanes: Vec::new(),
            free: Vec::new(),
            blocks: Vec::new(),
            board: PlainArc::new(Lock::new(Board {
                rung: Vec::new(),
                waker: None,
                is_away: false,
            })),
            rung: Vec::new(),
            limit: options.limit,
            is_ending: false,
            pace: Pace::new(),
            progress: options.progress,
            intake: Intake::new(options.source, asks, usize::MAX),
            steps: has_steps.then(|| {
                Box::new(Steps {
                    hand: Hand::new(),
                    toll,
                    lanes: Each(Lanes::new(options.limit)),
                })
            }),
            cut: None,
            may_have_more: true,
            function,
        }
    }

    /// Runs everything that can run now. Ready when `step` breaks, or when all items have ended.
    pub(crate) fn poll<B>(
        &mut self,
        cx: &mut Context<'_>,
        step: &mut impl FnMut(usize, Result<Value<Fut>, Error<Fut>>) -> Step<B>,
    ) -> Poll<Option<B>> {
        std::mem::swap(&mut self.board.lock().rung, &mut self.rung);
        while let Some(number) = self.rung.pop() {
            let mut bits = self.blocks[number].rung.swap(0, Ordering::AcqRel);
            while bits != 0 {
                let bit = bits.trailing_zeros();
                bits &= bits - 1;
                match self.run(number * 64 + bit as usize, cx, step) {
                    Step::Continue(true) => {}
                    Step::Continue(false) => {
                        self.put_back(number, bits);
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    Step::Break(end) => return Poll::Ready(Some(end)),
                }
            }
        }
        while self.may_have_more && self.has_room() {
            let lane = match self.fill(cx) {
                Poll::Ready(Some(lane)) => lane,
                Poll::Ready(None) | Poll::Pending => break,
            };
            match self.run(lane, cx, step) {
                Step::Continue(true) => {}
                Step::Continue(false) => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Step::Break(end) => return Poll::Ready(Some(end)),
            }
        }
        if !self.may_have_more && self.free.len() == self.lanes.len() {
            return Poll::Ready(None);
        }
        if self.rest(cx) {
            self.pace.pause();
        } else {
            // Woken by the poll itself: others have a turn, then on.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Leaves the caller's waker, unless somebody was woken meanwhile.
    fn rest(&self, cx: &Context<'_>) -> bool {
        let mut old = None;
        let mut board = self.board.lock();
        let is_known = matches!(&board.waker, Some(waker) if waker.will_wake(cx.waker()));
        if !is_known {
            drop(board);
            let fresh = PlainArc::new(cx.waker().clone());
            board = self.board.lock();
            old = board.waker.replace(fresh);
        }
        let is_quiet = board.rung.is_empty();
        board.is_away = is_quiet;
        drop(board);
        drop(old);
        is_quiet
    }

    /// Rings again for those of a block whose turn has not come.
    fn put_back(&mut self, number: usize, bits: u64) {
        let block = &self.blocks[number];
        let mut board = self.board.lock();
        if bits != 0 && block.rung.fetch_or(bits, Ordering::AcqRel) == 0 {
            board.rung.push(number);
        }
        board.rung.append(&mut self.rung);
    }

    fn has_room(&self) -> bool {
        !self.free.is_empty() || self.lanes.len() < self.limit
    }

    /// Takes nothing more, for this reason if there is anything left.
    pub(crate) fn cut(&mut self, reason: CancelReason) {
        let is_clear = |steps: &Steps<T>| steps.hand.is_empty() && steps.lanes.0.is_empty();
        let is_over = self.intake.is_over() && self.steps.as_deref().is_none_or(is_clear);
        if !is_over && self.may_have_more {
            self.cut = Some(reason);
        }
        self.may_have_more = false;
        self.steps = None; // what waits there never runs
    }

    pub(crate) fn why_cut(&mut self) -> Option<CancelReason> {
        self.cut.take()
    }

    /// Takes the next item that may run.
    fn poll_next(&mut self, pass: &mut Pass, cx: &mut Context<'_>) -> Poll<Taken<T>> {
        let Some(steps) = &mut self.steps else {
            let polled = self.intake.pull(cx);
            pass.index = self.intake.taken().wrapping_sub(1);
            return polled;
        };
        let Steps {
            hand,
            toll,
            lanes: Each(lanes),
        } = &mut **steps;
        loop {
            if !hand.is_empty() {
                return match ready!(hand.poll(toll, pass, cx)) {
                    Ok(item) => Poll::Ready(Taken::Item(item)),
                    Err(reason) => {
                        self.cut(reason);
                        Poll::Ready(Taken::End)
                    }
                };
            }
            if let Some(ticket) = lanes.next() {
                hand.put(ticket);
                continue;
            }
            if lanes.is_full() {
                return Poll::Ready(Taken::Full);
            }
            let ticket = match ready!(self.intake.pull(cx)) {
                Taken::Item(item) => self.intake.ticket(item),
                // Those who run bring on those who are parked.
                Taken::End if lanes.has_parked() => return Poll::Ready(Taken::Full),
                none => return Poll::Ready(none),
            };
            let ticket = match ticket.key {
                Some(key) => lanes.admit(key, ticket),
                None => Some(ticket),
            };
            if let Some(ticket) = ticket {
                hand.put(ticket);
            }
        }
    }

    /// Takes an item, and gives it a lane.
    fn fill(&mut self, cx: &mut Context<'_>) -> Poll<Option<usize>> {
        let mut pass = Pass::default();
        let item = match self.poll_next(&mut pass, cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Taken::Full) => return Poll::Ready(None),
            Poll::Ready(Taken::End) => {
                self.may_have_more = false;
                return Poll::Ready(None);
            }
            Poll::Ready(Taken::Item(item)) => item,
        };
        let lane = self.free.pop().unwrap_or_else(|| self.add_lane());
        let future = (self.function)(item);
        if let Some(progress) = &self.progress {
            progress.start();
        }
        let place = &mut self.lanes[lane];
        if let Some(steps) = &self.steps {
            place.offer = steps.toll.offer(&pass, place.offer.take());
        }
        place.pass = pass;
        place.future.set(Some(future));
        Poll::Ready(Some(lane))
    }

    /// X1.
    fn add_lane(&mut self) -> usize {
        let lane = self.lanes.len();
        if lane % 64 == 0 {
            self.blocks.push(PlainArc::new(Block {
                number: lane / 64,
                rung: AtomicU64::new(0),
                board: self.board.clone(),
            }));
        }
        let bell = Bell {
            block: self.blocks[lane / 64].clone(),
            bit: (lane % 64) as u32,
        };
        self.lanes.push(Lane {
            future: Box::pin(None),
            pass: Pass::default(),
            offer: None,
            waker: Waker::from(PlainArc::new(bell)),
        });
        lane
    }

    /// Polls the item of a lane, and as long as they are ready at once, the items after it. Continues with whether to go on.
    fn run<B>(
        &mut self,
        lane: usize,
        cx: &mut Context<'_>,
        step: &mut impl FnMut(usize, Result<Value<Fut>, Error<Fut>>) -> Step<B>,
    ) -> Step<B, bool> {
        let mut lane = lane;
        loop {
            let Lane {
                future,
                pass,
                offer,
                waker,
            } = &mut self.lanes[lane];
            let Some(running) = future.as_mut().as_pin_mut() else {
                return Step::Continue(true); // a wake from an item that has ended
            };
            let cx_here = &mut Context::from_waker(waker);
            let polled = if offer.is_none() {
                running.poll(cx_here)
            } else {
                Offer::during(offer, || running.poll(cx_here))
            };
            let Poll::Ready(output) = polled else {
                return Step::Continue(true);
            };
            // Should that throw, the result goes with it: it may borrow, so nobody else can be told of it.
            let returned = Calm(Some(output.into_item()));
            self.is_ending = true;
            future.set(None);
            self.is_ending = false;
            let Some(result) = returned.take() else {
                unreachable!("it was there")
            };
            let Pass { index, permit, key } = std::mem::take(pass);
            if let Some(permit) = permit {
                match &result {
                    Ok(_) => permit.succeeded(),
                    Err(_) => permit.overloaded(),
                }
            }
            if let (Some(key), Some(steps)) = (key, &mut self.steps) {
                steps.lanes.0.done(key);
            }
            self.free.push(lane);
            if let Some(progress) = &self.progress {
                progress.end(End::of(&result));
            }
            if let Step::Break(end) = step(index, result) {
                return Step::Break(end);
            }
            if self.pace.step() {
                return Step::Continue(false);
            }
            if !self.may_have_more {
                return Step::Continue(true);
            }
            match self.fill(cx) {
                Poll::Ready(Some(next)) => lane = next,
                Poll::Ready(None) | Poll::Pending => return Step::Continue(true),
            }
        }
    }
}

impl<S, T, F, Fut> Engine<S, T, F, Fut> {
    /// Drops what runs (X4). What it throws then goes to the observer.
    pub(crate) fn clear(&mut self) {
        if let (true, Some(progress)) = (std::mem::take(&mut self.is_ending), &self.progress) {
            progress.end(End::Cancelled);
        }
        for lane in &mut self.lanes {
            if lane.future.is_none() {
                continue;
            }
            if let Some(progress) = &self.progress {
                progress.end(End::Cancelled);
            }
            calmly(|| lane.future.set(None));
            lane.pass = Pass::default();
        }
    }

    /// Drops all of it (K1).
    pub(crate) fn dismantle(mut self) {
        self.clear();
        let Self {
            steps,
            intake,
            function,
            ..
        } = self;
        calmly(|| drop(steps));
        calmly(|| drop(intake));
        calmly(|| drop(function));
    }
}
