//! The door of a fan-out: where workers come for items.
//!
//! Two locks. That of the input is taken by workers that look for an item, and by nobody else; its `next` runs under it, and
//! may take as long as it likes. That of the crew is held for a few instructions, and no user code runs under it: whoever
//! delivers, leaves or stops needs this one alone.
//!
//! | word    | meaning                                                                  | written                  |
//! |---------|--------------------------------------------------------------------------|--------------------------|
//! | INSIDE  | somebody waits for the input, or with an item in hand: take nothing      | under the crew's lock    |
//! | CALL    | whoever has taken an item wakes, or starts, the next                      | under the crew's lock    |
//! | STOPPED | nothing more is taken                                                    | under the crew's lock    |
//! | KNOCKED | whoever gives the input back without an item wakes somebody              | under the crew's lock    |
//!
//! Q1. The lock of the input is taken before that of the crew, and nobody waits for it: who finds it taken for long is idle.
//! Q2. Who is idle for that reason has shown KNOCKED, or somebody else has, before it looks at the lock once more; who gives
//! the lock back looks for it after, or for CALL if it has an item. Both are read-modify-writes of one word: so one of the
//! two finds the other. Q3. Somebody is inside from before the lock of the input is given back until he has his item. Q4. On
//! one thread a worker keeps the input while its items are ready at once: nobody else can want it meanwhile.

use std::task::{Context, Poll, Waker, ready};

use crate::calm::Each;
use crate::fan_out::crew::{Badge, CALL, Crew, INSIDE, KNOCKED, Next, STOPPED};
use crate::fan_out::hand::{Hand, Pass, Toll};
use crate::fan_out::input::Input;
use crate::fan_out::intake::{Intake, Taken, Ticket};
use crate::limit::loan::Lender;
use crate::observe::CancelReason;
use crate::sync::{AtomicU64, Lock, MutexGuard, Ordering};

/// How often a worker looks whether the input is free before it lets others run; it waits longer each time, so that who has
/// the lock is left alone with its cache for a while.
const ROUNDS: u32 = if cfg!(any(ringfence_loom, ringfence_shuttle)) {
    0
} else {
    8
};

pub(crate) struct Door<S, T> {
    flags: AtomicU64,
    input: Lock<Intake<S, T>>,
    crew: Lock<Crew<Ticket<T>>>,
    /// Why it was cut off, as far as the one who did so knew.
    reason: Lock<Option<CancelReason>>,
    toll: Toll,
    has_steps: bool,
    is_parallel: bool,
}

/// What a worker keeps between two looks at the door.
pub(crate) struct Visit<T> {
    pub(crate) badge: Badge,
    pub(crate) pass: Pass,
    /// Made when there is first something to wait for with an item.
    hand: Option<Box<Hand<T>>>,
    /// While its item has permits.
    lender: Option<Lender>,
}

impl<T> Visit<T> {
    pub(crate) fn new() -> Self {
        Self {
            badge: Badge::new(),
            pass: Pass::default(),
            hand: None,
            lender: None,
        }
    }
}

/// The input, in the hands of a worker.
pub(crate) type Lease<'a, S, T> = Option<MutexGuard<'a, Intake<S, T>>>;

/// What one at the door does next.
enum Step<T> {
    /// Looks again.
    Again,
    Wait,
    End,
    /// Takes the input.
    Pull,
    Hold(Ticket<T>),
}

impl<S: Input<Item = T>, T> Door<S, T> {
    pub(crate) fn new(
        intake: Intake<S, T>,
        limit: usize,
        has_steps: bool,
        toll: Toll,
        is_parallel: bool,
    ) -> Self {
        Self {
            flags: AtomicU64::new(0),
            input: Lock::new(intake),
            crew: Lock::new(Crew::new(limit)),
            reason: Lock::new(None),
            toll,
            has_steps,
            is_parallel,
        }
    }

    /// Changes the crew, and shows what came of it.
    fn change<R>(&self, change: impl FnOnce(&mut Crew<Ticket<T>>) -> R) -> R {
        let mut crew = self.crew.lock();
        let changed = change(&mut crew);
        let flags = crew.flags();
        // Whoever writes it has the lock.
        if self.flags.load(Ordering::Relaxed) != flags {
            // AcqRel pairs with that of `call` (Q2).
            self.flags.swap(flags, Ordering::AcqRel);
        }
        changed
    }

    /// Takes the next item; none if there will be none. With it comes what is to be done for the item after it.
    #[expect(
        clippy::inline_always,
        reason = "as a call it costs as much again as all else that is done for an item"
    )]
    #[inline(always)]
    pub(crate) fn poll_next<'a>(
        &'a self,
        visit: &mut Visit<T>,
        lease: &mut Lease<'a, S, T>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<(T, Next)>> {
        let mut polled = None;
        if lease.is_none() && !self.has_steps && !visit.badge.is_away() {
            *lease = self.input.try_lock();
        }
        if let Some(intake) = lease {
            let flags = self.flags.load(Ordering::Relaxed);
            if flags & (INSIDE | STOPPED) == 0 {
                match intake.pull(cx) {
                    Poll::Ready(Taken::Item(item)) => {
                        visit.pass.index = intake.taken() - 1;
                        if !self.is_parallel && flags & CALL == 0 {
                            return Poll::Ready(Some((item, Next::Nothing)));
                        }
                        if self.is_parallel {
                            *lease = None; // Q4
                        }
                        return Poll::Ready(Some((item, self.call())));
                    }
                    without => polled = Some(without),
                }
            }
        }
        let taken = if self.has_steps {
            self.poll_steps(visit, cx)
        } else {
            self.poll_plain(polled, visit, lease, cx)
        };
        taken.map(|item| item.map(|item| (item, self.call())))
    }

    /// The same, not on the shortest way. The input, in our hands, was `polled` and had no item.
    #[inline(never)]
    fn poll_plain<'a>(
        &'a self,
        mut polled: Option<Poll<Taken<T>>>,
        visit: &mut Visit<T>,
        lease: &mut Lease<'a, S, T>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<T>> {
        if visit.badge.is_away() {
            self.arrive(&mut visit.badge);
        }
        loop {
            let intake = match lease {
                Some(intake) => intake,
                None => match ready!(self.enter(&mut visit.badge, cx)) {
                    Some(intake) => lease.insert(intake),
                    None => return Poll::Ready(None),
                },
            };
            let flags = self.flags.load(Ordering::Relaxed);
            let step = if flags & STOPPED != 0 {
                Step::End
            } else if flags & INSIDE != 0 {
                *lease = None;
                self.gave_back();
                self.seek(visit, cx)
            } else {
                let polled = polled.take().unwrap_or_else(|| intake.pull(cx));
                if let Poll::Ready(Taken::Item(item)) = polled {
                    visit.pass.index = intake.taken() - 1;
                    if self.is_parallel {
                        *lease = None; // Q4
                    }
                    return Poll::Ready(Some(item));
                }
                self.without_item(&polled, intake, &mut visit.badge, cx)
            };
            match step {
                Step::Wait => {
                    if lease.take().is_some() {
                        self.gave_back();
                    }
                    return Poll::Pending;
                }
                Step::End => return Poll::Ready(None),
                Step::Again | Step::Pull | Step::Hold(_) => {}
            }
        }
    }

    /// The same where an item has a key, a rate or permits to wait for.
    fn poll_steps(&self, visit: &mut Visit<T>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        loop {
            let Visit {
                badge,
                pass,
                hand,
                lender,
            } = visit;
            if let Some(hand) = hand.as_mut().filter(|hand| !hand.is_empty()) {
                let polled = ready!(hand.poll(&self.toll, pass, cx));
                if badge.is_away() {
                    self.arrive(badge);
                }
                let item = match polled {
                    Ok(item) if !self.is_cut() => {
                        *lender = self.toll.lend(pass, lender.take());
                        return Poll::Ready(Some(item));
                    }
                    Ok(item) => Some(item),
                    Err(reason) => {
                        self.stop(Some(reason));
                        None
                    }
                };
                self.tear(); // J5
                *pass = Pass::default();
                drop((item, hand.abandon(&self.toll)));
                return Poll::Ready(None);
            }
            if badge.is_away() {
                self.arrive(badge);
            }
            match self.seek(visit, cx) {
                Step::Wait => return Poll::Pending,
                Step::End => return Poll::Ready(None),
                Step::Again => continue,
                Step::Hold(ticket) => {
                    hold(&mut visit.hand, ticket);
                    continue;
                }
                Step::Pull => {}
            }
            let Visit { badge, hand, .. } = visit;
            let Some(mut intake) = ready!(self.enter(badge, cx)) else {
                return Poll::Ready(None);
            };
            if self.flags.load(Ordering::Relaxed) & (INSIDE | STOPPED) != 0 {
                drop(intake);
                self.gave_back();
                continue;
            }
            let polled = intake.pull(cx);
            if let Poll::Ready(Taken::Item(item)) = polled {
                let ticket = intake.ticket(item);
                let ticket = self.change(|crew| {
                    let ticket = match ticket.key {
                        Some(key) => crew.lanes.admit(key, ticket),
                        None => Some(ticket),
                    };
                    if ticket.is_some() {
                        // Stopped meanwhile, it is found so when the item has its turn.
                        drop(crew.wait_inside(badge, None));
                    }
                    ticket
                }); // Q3
                drop(intake);
                if let Some(ticket) = ticket {
                    hold(hand, ticket);
                }
                continue;
            }
            match self.without_item(&polled, &mut intake, badge, cx) {
                Step::Wait => {
                    drop(intake);
                    self.gave_back();
                    return Poll::Pending;
                }
                Step::End => return Poll::Ready(None),
                Step::Again | Step::Pull | Step::Hold(_) => {}
            }
        }
    }

    /// Finds what one at the door may do before it takes the input.
    fn seek(&self, visit: &mut Visit<T>, cx: &Context<'_>) -> Step<T> {
        let key = visit.pass.key.take();
        let mut next = None;
        let step = self.change(|crew| {
            if let Some(key) = key {
                crew.lanes.done(key);
            }
            if crew.is_stopped() {
                return Step::End;
            }
            if let Some(ticket) = crew.lanes.next() {
                // It may have to wait for its turn; behind it there is room now.
                next = crew.wake_one();
                return Step::Hold(ticket);
            }
            if crew.is_inside() || crew.lanes.is_full() {
                // The waker is that of a task of the runtime: no user code.
                return rest(crew.wait_idle(&mut visit.badge, cx.waker().clone()));
            }
            Step::Pull
        });
        wake(next);
        step
    }

    /// The input had no item. It is still in our hands.
    #[cold]
    fn without_item(
        &self,
        polled: &Poll<Taken<T>>,
        intake: &mut Intake<S, T>,
        badge: &mut Badge,
        cx: &Context<'_>,
    ) -> Step<T> {
        let waker = cx.waker().clone();
        let mut all = Vec::new();
        let step = self.change(|crew| match polled {
            Poll::Pending => rest(crew.wait_inside(badge, Some(waker))),
            Poll::Ready(Taken::Full | Taken::Item(_)) => {
                if intake.make_room(crew.delivered) {
                    Step::Again
                } else {
                    rest(crew.wait_idle(badge, waker))
                }
            }
            Poll::Ready(Taken::End) => {
                // None is ready: whoever ends the item before it takes it in the same look (`seek`).
                if crew.lanes.has_parked() {
                    // Those who run bring on those who are parked.
                    rest(crew.wait_idle(badge, waker))
                } else {
                    all = crew.stop();
                    Step::End
                }
            }
        });
        wake(all);
        if cfg!(ringfence_loom) {
            let _ = self.flags.load(Ordering::Relaxed); // loom does not switch between two unlocks
        }
        step
    }

    /// Takes the lock of the input, or waits until it is free; none once there is nothing more to take.
    #[inline]
    fn enter<'a>(
        &'a self,
        badge: &mut Badge,
        cx: &Context<'_>,
    ) -> Poll<Option<MutexGuard<'a, Intake<S, T>>>> {
        match self.input.try_lock() {
            Some(intake) => Poll::Ready(Some(intake)),
            None => self.enter_patiently(badge, cx),
        }
    }

    #[cold]
    fn enter_patiently<'a>(
        &'a self,
        badge: &mut Badge,
        cx: &Context<'_>,
    ) -> Poll<Option<MutexGuard<'a, Intake<S, T>>>> {
        for round in 0..ROUNDS {
            for _ in 0..1 << round {
                std::hint::spin_loop();
            }
            if let Some(intake) = self.input.try_lock() {
                return Poll::Ready(Some(intake));
            }
        }
        // The input takes its time: this thread has other things to do.
        let waker = cx.waker().clone();
        if self.change(|crew| crew.knock(badge, waker)).is_err() {
            return Poll::Ready(None);
        }
        let Some(intake) = self.input.try_lock() else {
            return Poll::Pending; // Q2
        };
        self.arrive(badge);
        Poll::Ready(Some(intake))
    }

    fn arrive(&self, badge: &mut Badge) {
        drop(self.change(|crew| crew.arrive(badge)));
    }

    /// Reads the word after the input was given back.
    #[inline]
    fn flags_after(&self) -> u64 {
        if self.is_parallel {
            // AcqRel pairs with that of `change`: who was idle by then is seen, and who is not has seen the lock free (Q2).
            self.flags.fetch_or(0, Ordering::AcqRel)
        } else {
            self.flags.load(Ordering::Relaxed)
        }
    }

    /// Finds who is to take the item after the one that was just taken.
    #[inline]
    fn call(&self) -> Next {
        if self.flags_after() & CALL == 0 {
            Next::Nothing
        } else {
            self.change(Crew::next)
        }
    }

    /// Has somebody look again who found the input taken. It was given back without an item.
    fn gave_back(&self) {
        if self.flags_after() & KNOCKED != 0 {
            wake(self.change(Crew::answer));
        }
    }

    /// Notes that so many results were delivered.
    pub(crate) fn deliver(&self, n: usize) {
        let waker = self.change(|crew| {
            crew.delivered += n;
            crew.wake_one()
        });
        wake(waker);
    }

    /// Lets nothing more be taken: cut off, for this reason if it is known.
    pub(crate) fn stop(&self, reason: Option<CancelReason>) {
        if let Some(reason) = reason {
            self.reason.lock().get_or_insert(reason);
        }
        let (all, lanes) = self.change(Crew::cut);
        wake(all);
        drop(Each(lanes));
    }

    fn is_cut(&self) -> bool {
        self.is_stopped() && self.crew.lock().is_cut()
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & STOPPED != 0
    }

    /// Notes that an item was taken that does not end.
    pub(crate) fn tear(&self) {
        self.change(|crew| crew.is_torn = true);
    }

    /// Counts a worker out, which holds nothing any more. Returns whether it was the last.
    pub(crate) fn leave(&self, visit: &mut Visit<T>) -> bool {
        let ticket = visit
            .hand
            .as_mut()
            .and_then(|hand| hand.abandon(&self.toll));
        let (is_last, old) = self.change(|crew| {
            crew.is_torn |= ticket.is_some();
            crew.leave(&mut visit.badge)
        });
        drop((old, ticket));
        is_last
    }

    /// When all workers have left: says why they did so before the input was over, if they did.
    pub(crate) fn why_torn(&self) -> Option<Option<CancelReason>> {
        let is_over = self.input.lock().is_over();
        let is_torn = self.crew.lock().is_torn;
        (is_torn || !is_over).then(|| self.reason.lock().take())
    }
}

fn hold<T>(hand: &mut Option<Box<Hand<T>>>, ticket: Ticket<T>) {
    hand.get_or_insert_with(|| Box::new(Hand::new()))
        .put(ticket);
}

fn rest<T, W>(waits: Result<(), W>) -> Step<T> {
    match waits {
        Ok(()) => Step::Wait,
        Err(_) => Step::Again, // it was stopped meanwhile
    }
}

fn wake(all: impl IntoIterator<Item = Waker>) {
    for waker in all {
        waker.wake();
    }
}

#[cfg(all(test, not(any(ringfence_loom, ringfence_shuttle))))]
mod tests {
    use std::ops::Range;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;
    use crate::fan_out::input::{IntoInput, Iterated};
    use crate::sync::PlainArc;

    type Numbers = Door<Iterated<Range<u8>>, u8>;

    /// Counts how often it was woken, each time with the input free for who was.
    struct Bell(PlainArc<Numbers>, AtomicUsize);

    impl Wake for Bell {
        fn wake(self: PlainArc<Self>) {
            assert!(self.0.input.try_lock().is_some(), "the input is free");
            self.1.fetch_add(1, Ordering::SeqCst);
        }
    }

    struct One {
        visit: Visit<u8>,
        bell: PlainArc<Bell>,
    }

    impl One {
        fn at(door: &PlainArc<Numbers>) -> Self {
            Self {
                visit: Visit::new(),
                bell: PlainArc::new(Bell(door.clone(), AtomicUsize::new(0))),
            }
        }

        fn polls(&mut self) -> Poll<Option<u8>> {
            let waker = Waker::from(self.bell.clone());
            let door = self.bell.0.clone();
            let taken =
                door.poll_next(&mut self.visit, &mut None, &mut Context::from_waker(&waker));
            taken.map(|taken| taken.map(|(item, _)| item))
        }

        fn woken(&self) -> usize {
            self.bell.1.load(Ordering::SeqCst)
        }
    }

    #[test]
    fn who_gives_the_input_back_without_an_item_wakes_who_found_it_taken() {
        for has_steps in [false, true] {
            let intake = Intake::new((0..9).into_input(), None, 1);
            let door = Door::new(intake, 3, has_steps, Toll::default(), true);
            let door = PlainArc::new(door);
            let (mut a, mut b) = (One::at(&door), One::at(&door));
            assert_eq!(a.polls(), Poll::Ready(Some(0)));
            let taken = door.input.lock();
            assert!(b.polls().is_pending());
            drop(taken);
            assert!(a.polls().is_pending(), "it is full");
            assert_eq!((a.woken(), b.woken()), (0, 1));
            assert!(b.polls().is_pending(), "it is full");
            // Nobody found it taken now.
            assert_eq!((a.woken(), b.woken()), (0, 1));
            door.deliver(1);
            assert_eq!((a.woken(), b.woken()), (1, 1));
            assert_eq!(a.polls(), Poll::Ready(Some(1)));
        }
    }
}
