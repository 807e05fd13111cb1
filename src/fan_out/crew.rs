//! Who works: workers are started one by one, each by the one before it that found something to do.
//!
//! | a worker is | counted in        | until                                                    |
//! |-------------|-------------------|----------------------------------------------------------|
//! | fresh       | `fresh`           | it comes to the intake: it was just started, or woken    |
//! | inside      | `inside`          | what it waits for (input, rate, permit) wakes it         |
//! | idle        | `idle`            | it is woken, by one that took an item, or at the end     |
//! | busy        |                   | its item ends                                            |
//!
//! V1. At most one is fresh, and at most one is inside. V2. Whoever takes an item sees to the next: it wakes an idle one, or
//! starts one if there is none and room for more; not if somebody is fresh or inside, who will do that in turn. V3. So when
//! somebody is idle, somebody is fresh or inside; or nothing may be taken before something ends or is delivered, and who
//! brings that about wakes one. V4. The first to see the end wakes all.

use std::task::Waker;

#[derive(Debug)]
pub(crate) struct Crew {
    limit: usize,
    started: usize,
    ended: usize,
    fresh: usize,
    inside: Option<(usize, Waker)>,
    idle: Vec<(usize, Waker)>,
}

/// What one that took an item does for the next (V2).
#[derive(Debug)]
pub(crate) enum Next {
    Nothing,
    Wake(Waker),
    /// Starts a worker of this number.
    Start(usize),
}

/// What a worker knows of itself.
#[derive(Debug)]
pub(crate) struct Badge {
    number: usize,
    is_fresh: bool,
    is_waiting: bool,
}

impl Badge {
    pub(crate) fn new(number: usize) -> Self {
        Self {
            number,
            is_fresh: true,
            is_waiting: false,
        }
    }
}

impl Crew {
    /// A crew whose first worker is about to be started, with number 0.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            started: 1,
            ended: 0,
            fresh: 1,
            inside: None,
            idle: Vec::new(),
        }
    }

    /// Notes that a worker has come to the intake.
    #[inline]
    pub(crate) fn arrive(&mut self, badge: &mut Badge) {
        if badge.is_fresh {
            badge.is_fresh = false;
            self.fresh -= 1;
        }
        if badge.is_waiting {
            badge.is_waiting = false;
            self.arrive_from_waiting(badge.number);
        }
    }

    fn arrive_from_waiting(&mut self, number: usize) {
        if self.inside.as_ref().is_some_and(|(who, _)| *who == number) {
            self.inside = None;
        } else if let Some(place) = self.idle.iter().position(|(who, _)| *who == number) {
            self.idle.swap_remove(place);
        } else {
            self.fresh -= 1; // it was woken
        }
    }

    /// Asks whether somebody waits inside.
    #[inline]
    pub(crate) fn is_inside(&self) -> bool {
        self.inside.is_some()
    }

    /// Has a worker wait for what the intake waits for. Who was inside before it is idle now.
    pub(crate) fn wait_inside(&mut self, badge: &mut Badge, waker: Waker) {
        badge.is_waiting = true;
        let before = self.inside.replace((badge.number, waker));
        self.idle.extend(before);
    }

    /// Has a worker wait until there is something for it to do.
    pub(crate) fn wait_idle(&mut self, badge: &mut Badge, waker: Waker) {
        badge.is_waiting = true;
        self.idle.push((badge.number, waker));
    }

    /// Finds who is to take the next item (V2).
    #[inline]
    pub(crate) fn next(&mut self) -> Next {
        if self.fresh > 0 || self.inside.is_some() {
            return Next::Nothing;
        }
        if let Some((_, waker)) = self.idle.pop() {
            self.fresh += 1;
            return Next::Wake(waker);
        }
        if self.started < self.limit {
            self.fresh += 1;
            self.started += 1;
            return Next::Start(self.started - 1);
        }
        Next::Nothing
    }

    /// Finds an idle one, because something may be taken again (V3).
    pub(crate) fn wake_one(&mut self) -> Option<Waker> {
        if self.fresh > 0 || self.inside.is_some() {
            return None;
        }
        let (_, waker) = self.idle.pop()?;
        self.fresh += 1;
        Some(waker)
    }

    /// Takes all who wait, because the end has come (V4). They are as good as fresh.
    pub(crate) fn wake_all(&mut self) -> Vec<Waker> {
        let all: Vec<Waker> = self
            .idle
            .drain(..)
            .chain(self.inside.take())
            .map(|(_, waker)| waker)
            .collect();
        self.fresh += all.len();
        all
    }

    /// Counts a worker out. Returns whether it was the last.
    pub(crate) fn leave(&mut self, badge: &mut Badge) -> bool {
        self.arrive(badge);
        self.ended += 1;
        self.ended == self.started
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waker() -> Waker {
        Waker::noop().clone()
    }

    #[test]
    fn each_that_takes_an_item_starts_the_next_up_to_the_limit() {
        let mut crew = Crew::new(2);
        let mut first = Badge::new(0);
        crew.arrive(&mut first);
        assert!(matches!(crew.next(), Next::Start(1)));
        assert!(matches!(crew.next(), Next::Nothing), "one is fresh");
        let mut second = Badge::new(1);
        crew.arrive(&mut second);
        assert!(matches!(crew.next(), Next::Nothing), "the limit");
        assert!(!crew.leave(&mut first) && crew.leave(&mut second));
    }

    #[test]
    fn the_idle_are_woken_before_anybody_is_started() {
        let mut crew = Crew::new(9);
        let (mut a, mut b, mut c) = (Badge::new(0), Badge::new(1), Badge::new(2));
        crew.arrive(&mut a);
        assert!(matches!(crew.next(), Next::Start(1)));
        crew.wait_inside(&mut a, waker());
        crew.arrive(&mut b);
        crew.wait_idle(&mut b, waker());
        assert!(matches!(crew.next(), Next::Nothing), "one is inside");
        crew.arrive(&mut a);
        assert!(matches!(crew.next(), Next::Wake(_)));
        crew.arrive(&mut b);
        assert!(matches!(crew.next(), Next::Start(2)));
        crew.arrive(&mut c);
        crew.wait_idle(&mut b, waker());
        crew.wait_inside(&mut a, waker());
        crew.wait_inside(&mut c, waker());
        assert_eq!(crew.wake_all().len(), 3);
        assert!(!crew.leave(&mut a) && !crew.leave(&mut b) && crew.leave(&mut c));
        assert_eq!(crew.fresh, 0);
    }
}
