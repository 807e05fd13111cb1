//! Who works: workers are started one by one, each by the one before it that found something to do.
//!
//! | a worker is | counted in | until                                                                                 |
//! |-------------|------------|---------------------------------------------------------------------------------------|
//! | fresh       | `fresh`    | it comes to the door: it was just started, or woken                                   |
//! | at the door |            | its poll there is over: it has an item, waits, or leaves                              |
//! | inside      | `inside`   | what it waits for wakes it: the input; or, with an item in hand, its rate or permits  |
//! | idle        | `idle`     | it is woken, by one that took an item, or because something may be taken again        |
//! | busy        |            | its item ends                                                                         |
//!
//! V1. At most one is fresh, and at most one is inside. V2. Whoever takes an item sees to the next: it wakes an idle one, or
//! starts one if there is none and room for more; not if somebody is fresh or inside, who will do that in turn. V3. So when
//! somebody is idle, somebody is fresh, inside or at the door; or nothing may be taken before something ends or is delivered,
//! and who brings that about wakes one. V4. Once stopped, everybody who waits is woken, and nobody waits again.

use std::task::Waker;

use crate::fan_out::lanes::Lanes;
use crate::limit::waiters::{Left, Seat, Waiters};

/// What a look at the crew tells without its lock: whether somebody waits inside, whether whoever takes an item has to see to
/// the next one, and whether nothing more is to be taken.
pub(crate) const INSIDE: u64 = 1;
pub(crate) const CALL: u64 = 1 << 1;
pub(crate) const STOPPED: u64 = 1 << 2;
/// Somebody is idle because the input was taken, and may have missed that it was given back.
pub(crate) const KNOCKED: u64 = 1 << 3;

pub(crate) struct Crew<T> {
    limit: usize,
    started: usize,
    ended: usize,
    fresh: usize,
    idle: Waiters,
    is_inside: bool,
    /// Of the one inside, if it waits for the input.
    inside: Option<Waker>,
    has_knocked: bool,
    is_stopped: bool,
    /// It was stopped before the input was over.
    is_cut: bool,
    /// An item was taken and did not end.
    pub(crate) is_torn: bool,
    /// How many results were delivered.
    pub(crate) delivered: usize,
    /// Items behind a busy key.
    pub(crate) lanes: Lanes<T>,
}

/// What one that took an item does for the next (V2).
#[derive(Debug)]
pub(crate) enum Next {
    Nothing,
    Wake(Waker),
    Start,
}

/// What a worker knows of itself.
#[derive(Debug)]
pub(crate) struct Badge {
    is_fresh: bool,
    is_inside: bool,
    seat: Option<Seat>,
}

impl Badge {
    pub(crate) const fn new() -> Self {
        Self {
            is_fresh: true,
            is_inside: false,
            seat: None,
        }
    }

    /// Asks whether it is anything but at the door or busy.
    #[inline]
    pub(crate) const fn is_away(&self) -> bool {
        self.is_fresh || self.is_inside || self.seat.is_some()
    }
}

impl<T> Crew<T> {
    /// A crew whose first worker is about to be started, with number 0.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            started: 1,
            ended: 0,
            fresh: 1,
            idle: Waiters::new(),
            is_inside: false,
            inside: None,
            has_knocked: false,
            is_stopped: false,
            is_cut: false,
            is_torn: false,
            delivered: 0,
            lanes: Lanes::new(limit),
        }
    }

    /// What is to be shown of it.
    pub(crate) fn flags(&self) -> u64 {
        if self.is_stopped {
            return STOPPED;
        }
        let knocked = if self.has_knocked { KNOCKED } else { 0 };
        if self.is_inside {
            knocked | INSIDE
        } else if self.may_call() && (!self.idle.is_empty() || self.started < self.limit) {
            knocked | CALL
        } else {
            knocked
        }
    }

    const fn may_call(&self) -> bool {
        self.fresh == 0 && !self.is_inside && !self.is_stopped
    }

    /// Notes that a worker has come to the door. Gives wakers back that are to be dropped outside the lock.
    pub(crate) fn arrive(&mut self, badge: &mut Badge) -> [Option<Waker>; 2] {
        if std::mem::take(&mut badge.is_fresh) {
            self.fresh -= 1;
        }
        let mut old = [None, None];
        if std::mem::take(&mut badge.is_inside) {
            self.is_inside = false;
            old[0] = self.inside.take();
        }
        if let Some(seat) = badge.seat.take() {
            match self.idle.leave(seat) {
                Left::Granted => self.fresh -= 1, // it was woken
                Left::Waiting { waker, .. } => old[1] = waker,
            }
        }
        old
    }

    pub(crate) const fn is_inside(&self) -> bool {
        self.is_inside
    }

    pub(crate) const fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    pub(crate) const fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Has a worker wait inside: with a waker for the input, with none for its item's turn. Gives the waker back if it has to
    /// leave instead (V4).
    pub(crate) fn wait_inside(
        &mut self,
        badge: &mut Badge,
        waker: Option<Waker>,
    ) -> Result<(), Option<Waker>> {
        if self.is_stopped {
            return Err(waker);
        }
        badge.is_inside = true;
        self.is_inside = true;
        self.inside = waker;
        Ok(())
    }

    /// Has a worker wait until there is something for it to do. Gives the waker back if it has to leave instead (V4).
    pub(crate) fn wait_idle(&mut self, badge: &mut Badge, waker: Waker) -> Result<(), Waker> {
        if self.is_stopped {
            return Err(waker);
        }
        badge.seat = Some(self.idle.push(1, waker));
        Ok(())
    }

    /// Has a worker wait because another one has the input, which will look for that.
    pub(crate) fn knock(&mut self, badge: &mut Badge, waker: Waker) -> Result<(), Waker> {
        self.wait_idle(badge, waker)?;
        self.has_knocked = true;
        Ok(())
    }

    /// Finds somebody to look again, if anybody found the input taken by one that took nothing.
    pub(crate) fn answer(&mut self) -> Option<Waker> {
        std::mem::take(&mut self.has_knocked)
            .then(|| self.wake_one())
            .flatten()
    }

    /// Finds who is to take the next item (V2).
    pub(crate) fn next(&mut self) -> Next {
        if let Some(waker) = self.wake_one() {
            return Next::Wake(waker);
        }
        if self.may_call() && self.started < self.limit {
            self.fresh += 1;
            self.started += 1;
            return Next::Start;
        }
        Next::Nothing
    }

    /// Finds an idle one, because something may be taken again (V3).
    pub(crate) fn wake_one(&mut self) -> Option<Waker> {
        if !self.may_call() {
            return None;
        }
        let waker = self.idle.grant()?;
        self.fresh += 1;
        Some(waker)
    }

    /// Lets nothing more be taken, though the input may not be over. Gives back what waits for its key, which never runs.
    pub(crate) fn cut(&mut self) -> (Vec<Waker>, Lanes<T>) {
        self.is_cut = true;
        let lanes = std::mem::replace(&mut self.lanes, Lanes::new(self.limit));
        self.is_torn |= !lanes.is_empty();
        (self.stop(), lanes)
    }

    /// Lets nothing more be taken, and takes the wakers of all who wait (V4).
    pub(crate) fn stop(&mut self) -> Vec<Waker> {
        if std::mem::replace(&mut self.is_stopped, true) {
            return Vec::new();
        }
        let mut all: Vec<Waker> = self.inside.take().into_iter().collect();
        while let Some(waker) = self.idle.grant() {
            self.fresh += 1;
            all.push(waker);
        }
        all
    }

    /// Counts a worker out. Returns whether it was the last.
    pub(crate) fn leave(&mut self, badge: &mut Badge) -> (bool, [Option<Waker>; 2]) {
        let old = self.arrive(badge);
        self.ended += 1;
        (self.ended == self.started, old)
    }
}

#[cfg(all(test, not(any(ringfence_loom, ringfence_shuttle))))]
mod tests {
    use super::*;

    fn waker() -> Waker {
        Waker::noop().clone()
    }

    fn crew(limit: usize) -> Crew<()> {
        Crew::new(limit)
    }

    #[test]
    fn each_that_takes_an_item_starts_the_next_up_to_the_limit() {
        let mut crew = crew(2);
        let mut first = Badge::new();
        assert_eq!(crew.flags(), 0, "one is fresh");
        drop(crew.arrive(&mut first));
        assert_eq!(crew.flags(), CALL);
        assert!(matches!(crew.next(), Next::Start));
        assert!(matches!(crew.next(), Next::Nothing), "one is fresh");
        let mut second = Badge::new();
        drop(crew.arrive(&mut second));
        assert_eq!(crew.flags(), 0, "the limit");
        assert!(matches!(crew.next(), Next::Nothing), "the limit");
        assert!(!crew.leave(&mut first).0 && crew.leave(&mut second).0);
    }

    #[test]
    fn the_idle_are_woken_before_anybody_is_started() {
        let mut crew = crew(9);
        let (mut a, mut b, mut c) = (Badge::new(), Badge::new(), Badge::new());
        drop(crew.arrive(&mut a));
        assert!(matches!(crew.next(), Next::Start));
        assert!(crew.wait_inside(&mut a, Some(waker())).is_ok());
        drop(crew.arrive(&mut b));
        assert!(crew.wait_idle(&mut b, waker()).is_ok());
        assert_eq!(crew.flags(), INSIDE);
        assert!(matches!(crew.next(), Next::Nothing), "one is inside");
        drop(crew.arrive(&mut a));
        assert!(matches!(crew.next(), Next::Wake(_)));
        drop(crew.arrive(&mut b));
        assert!(matches!(crew.next(), Next::Start));
        drop(crew.arrive(&mut c));
        assert!(crew.wait_idle(&mut b, waker()).is_ok());
        assert!(crew.wait_inside(&mut a, Some(waker())).is_ok());
        assert_eq!(crew.cut().0.len(), 2);
        assert_eq!(crew.flags(), STOPPED);
        assert!(crew.wait_inside(&mut c, None).is_err(), "nor inside");
        assert!(
            crew.wait_idle(&mut c, waker()).is_err(),
            "nobody waits again"
        );
        assert!(!crew.leave(&mut a).0 && !crew.leave(&mut b).0 && crew.leave(&mut c).0);
        assert_eq!(crew.fresh, 0);
    }

    #[test]
    fn who_knocked_is_answered_once() {
        let mut crew = crew(2);
        let (mut a, mut b) = (Badge::new(), Badge::new());
        drop(crew.arrive(&mut a));
        assert!(matches!(crew.next(), Next::Start));
        drop(crew.arrive(&mut b));
        assert!(crew.answer().is_none(), "nobody knocked");
        assert!(crew.knock(&mut b, waker()).is_ok());
        assert_eq!(crew.flags(), KNOCKED | CALL);
        assert!(crew.answer().is_some());
        drop(crew.arrive(&mut b));
        assert!(crew.answer().is_none() && crew.fresh == 0);
    }

    #[test]
    fn one_that_comes_by_itself_is_idle_no_more() {
        let mut crew = crew(1);
        let mut a = Badge::new();
        drop(crew.arrive(&mut a));
        assert!(crew.wait_idle(&mut a, waker()).is_ok());
        drop(crew.arrive(&mut a));
        assert!(crew.wake_one().is_none() && !a.is_away());
        assert!(crew.wait_idle(&mut a, waker()).is_ok());
        assert!(crew.wake_one().is_some() && crew.fresh == 1);
        assert!(crew.wake_one().is_none(), "one is on its way");
        drop(crew.arrive(&mut a));
        assert_eq!(crew.fresh, 0);
    }
}
