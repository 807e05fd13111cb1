//! Who waits, first come first served: a list threaded through a slab, so that a wait allocates nothing once the slab has
//! grown, and leaves no trace when it is given up.
//!
//! W1. The list is in order of arrival. W2. A slot that was granted stays taken until its owner has seen it. W3. Nothing here
//! calls user code: wakers go in cloned, and come out to be woken or dropped by the caller, outside its lock.

use std::task::Waker;

const NONE: usize = usize::MAX;

/// A place in the list. Its owner hands it back, in [`Waiters::leave`] or [`Waiters::settle`].
pub(crate) type Seat = usize;

enum State {
    Free,
    /// With no waker: it was called, and leaves another when it has looked.
    Waiting(Option<Waker>),
    Granted,
}

struct Slot {
    weight: u64,
    state: State,
    /// Free slots use `next` alone.
    previous: usize,
    next: usize,
}

/// What a seat was when it was left.
pub(crate) enum Left {
    /// It had been granted: what was granted goes on to somebody else.
    Granted,
    /// It was still waiting, and so was somebody before it or not.
    Waiting {
        waker: Option<Waker>,
        was_first: bool,
    },
}

pub(crate) struct Waiters {
    slots: Vec<Slot>,
    first: usize,
    last: usize,
    free: usize,
    len: usize,
    weight: u64,
}

impl Waiters {
    pub(crate) const fn new() -> Self {
        Self {
            slots: Vec::new(),
            first: NONE,
            last: NONE,
            free: NONE,
            len: 0,
            weight: 0,
        }
    }

    /// How many wait; who was granted waits no more.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The weights of all who wait.
    pub(crate) fn weight(&self) -> u64 {
        self.weight
    }

    /// The weights of all who wait before this one.
    pub(crate) fn weight_before(&self, seat: Seat) -> u64 {
        let mut sum: u64 = 0;
        let mut at = self.slots[seat].previous;
        while at != NONE {
            sum = sum.saturating_add(self.slots[at].weight);
            at = self.slots[at].previous;
        }
        sum
    }

    /// The weight of the first.
    pub(crate) fn first(&self) -> Option<u64> {
        self.slots.get(self.first).map(|slot| slot.weight)
    }

    pub(crate) fn is_first(&self, seat: Seat) -> bool {
        self.first == seat
    }

    /// Takes the waker of the first, to have it look.
    pub(crate) fn call_first(&mut self) -> Option<Waker> {
        match self.slots.get_mut(self.first).map(|slot| &mut slot.state) {
            Some(State::Waiting(waker)) => waker.take(),
            _ => None,
        }
    }

    /// Takes the wakers of all who wait, to have them look.
    pub(crate) fn call_all(&mut self) -> Vec<Waker> {
        let mut all = Vec::with_capacity(self.len);
        let mut at = self.first;
        while let Some(slot) = self.slots.get_mut(at) {
            if let State::Waiting(waker) = &mut slot.state {
                all.extend(waker.take());
            }
            at = slot.next;
        }
        all
    }

    /// Takes a seat at the end.
    pub(crate) fn push(&mut self, weight: u64, waker: Waker) -> Seat {
        let slot = Slot {
            weight,
            state: State::Waiting(Some(waker)),
            previous: self.last,
            next: NONE,
        };
        let seat = match self.slots.get(self.free) {
            Some(free) => {
                let seat = self.free;
                self.free = free.next;
                self.slots[seat] = slot;
                seat
            }
            None => {
                self.slots.push(slot);
                self.slots.len() - 1
            }
        };
        match self.slots.get_mut(self.last) {
            Some(last) => last.next = seat,
            None => self.first = seat,
        }
        self.last = seat;
        self.len += 1;
        self.weight = self.weight.saturating_add(weight);
        seat
    }

    /// Puts a newer waker in; the older one is for the caller to drop.
    pub(crate) fn renew(&mut self, seat: Seat, waker: Waker) -> Option<Waker> {
        match &mut self.slots[seat].state {
            State::Waiting(old) => old.replace(waker),
            State::Free | State::Granted => Some(waker),
        }
    }

    /// Asks whether the waker of this seat would wake the same task.
    pub(crate) fn will_wake(&self, seat: Seat, waker: &Waker) -> bool {
        matches!(&self.slots[seat].state, State::Waiting(Some(old)) if old.will_wake(waker))
    }

    /// Grants the first what it waits for, and takes it off the list.
    pub(crate) fn grant(&mut self) -> Option<Waker> {
        let seat = self.first;
        let waker = self.call_first();
        self.slots.get_mut(seat)?.state = State::Granted;
        self.unlink(seat);
        waker
    }

    /// Asks whether the seat was granted; if so, it is free again (W2).
    pub(crate) fn settle(&mut self, seat: Seat) -> bool {
        let is_granted = matches!(self.slots[seat].state, State::Granted);
        if is_granted {
            self.vacate(seat);
        }
        is_granted
    }

    /// Gives the seat up.
    pub(crate) fn leave(&mut self, seat: Seat) -> Left {
        match std::mem::replace(&mut self.slots[seat].state, State::Free) {
            State::Waiting(waker) => {
                let was_first = self.first == seat;
                self.unlink(seat);
                self.vacate(seat);
                Left::Waiting { waker, was_first }
            }
            State::Granted | State::Free => {
                self.vacate(seat);
                Left::Granted
            }
        }
    }

    fn unlink(&mut self, seat: Seat) {
        let Slot {
            weight,
            previous,
            next,
            ..
        } = self.slots[seat];
        match self.slots.get_mut(previous) {
            Some(slot) => slot.next = next,
            None => self.first = next,
        }
        match self.slots.get_mut(next) {
            Some(slot) => slot.previous = previous,
            None => self.last = previous,
        }
        self.len -= 1;
        self.weight = self.weight.saturating_sub(weight);
    }

    fn vacate(&mut self, seat: Seat) {
        let slot = &mut self.slots[seat];
        slot.state = State::Free;
        slot.next = self.free;
        self.free = seat;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waker() -> Waker {
        Waker::noop().clone()
    }

    #[test]
    fn seats_are_granted_in_order_and_used_again() {
        let mut list = Waiters::new();
        let seats: Vec<Seat> = (1..=3).map(|weight| list.push(weight, waker())).collect();
        assert_eq!((list.len(), list.weight(), list.first()), (3, 6, Some(1)));
        assert_eq!(list.weight_before(seats[2]), 3);
        assert!(list.is_first(seats[0]) && !list.is_first(seats[1]));
        assert!(list.will_wake(seats[0], Waker::noop()));
        assert!(matches!(
            list.leave(seats[1]),
            Left::Waiting {
                was_first: false,
                ..
            }
        ));
        assert!(list.grant().is_some());
        assert!(list.settle(seats[0]));
        assert_eq!((list.first(), list.len()), (Some(3), 1));
        assert!(!list.settle(seats[2]));
        let again = list.push(9, waker());
        assert!(again < 3, "a free slot is used first");
        assert!(matches!(
            list.leave(seats[2]),
            Left::Waiting {
                was_first: true,
                ..
            }
        ));
        assert!(list.is_first(again));
        assert!(list.grant().is_some());
        assert!(
            list.renew(again, waker()).is_some(),
            "who was granted waits no more"
        );
        assert!(matches!(list.leave(again), Left::Granted));
        assert!(list.is_empty() && list.grant().is_none());
        for _ in 0..3 {
            list.push(1, waker()); // in all three, whichever way they were left
        }
        assert_eq!(list.slots.len(), 3);
    }
}
