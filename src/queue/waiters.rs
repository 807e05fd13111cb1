//! Who waits on one side of a queue: a FIFO list in a slab, so that no wait allocates.
//!
//! | state of a place | in the list | has a waker | means |
//! |---|---|---|---|
//! | free | no | no | may be handed out |
//! | granted | before the line | no | `have == want`: what it waits for is set aside for it |
//! | waiting | from the line on | since it last looked, until it is woken | `have < want` |
//!
//! W1. A place belongs to one future, from `join` to `leave`, so an index is name enough. W2. The list is in the order of
//! arrival. What is granted is granted to the first who waits, and what is taken back is taken from the last to whom it was
//! granted: the line moves, and nobody changes places. W3. `reserved` is the sum of every `have`. W4. Nothing here wakes,
//! clones or drops a waker: it is handed out, and that is done outside the lock.

use std::task::Waker;

/// No place.
const NONE: usize = usize::MAX;

struct Place {
    waker: Option<Waker>,
    want: usize,
    have: usize,
    /// When it came.
    arrival: u64,
    /// In the list; of a free place, the next free one.
    next: usize,
    before: usize,
}

/// The waiters of one kind.
pub(crate) struct Waiters {
    places: Vec<Place>,
    free: usize,
    head: usize,
    tail: usize,
    /// The first that waits.
    line: usize,
    waiting: usize,
    taken: usize,
    reserved: usize,
    lacking: usize,
}

impl Waiters {
    pub(crate) const fn new() -> Self {
        Self {
            places: Vec::new(),
            free: NONE,
            head: NONE,
            tail: NONE,
            line: NONE,
            waiting: 0,
            taken: 0,
            reserved: 0,
            lacking: 0,
        }
    }

    /// How many wait.
    #[inline]
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many there are, granted ones included.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.taken
    }

    /// What is set aside for them, in all (W3).
    #[inline]
    pub(crate) fn reserved(&self) -> usize {
        self.reserved
    }

    /// What those who wait still lack, in all.
    pub(crate) fn lacking(&self) -> usize {
        self.lacking
    }

    pub(crate) fn have(&self, key: usize) -> usize {
        self.places[key].have
    }

    pub(crate) fn is_granted(&self, key: usize) -> bool {
        let place = &self.places[key];
        place.have == place.want
    }

    /// Takes a place at the end of the list.
    pub(crate) fn join(&mut self, want: usize, arrival: u64, waker: Waker) -> usize {
        let place = Place {
            waker: Some(waker),
            want,
            have: 0,
            arrival,
            next: NONE,
            before: self.tail,
        };
        let key = if self.free == NONE {
            self.places.push(place);
            self.places.len() - 1
        } else {
            let key = self.free;
            self.free = self.places[key].next;
            self.places[key] = place;
            key
        };
        match self.places.get_mut(self.tail) {
            Some(last) => last.next = key,
            None => self.head = key,
        }
        self.tail = key;
        if self.line == NONE {
            self.line = key;
        }
        self.taken += 1;
        self.waiting += 1;
        self.lacking = self.lacking.saturating_add(want);
        key
    }

    /// Whether this waker would be woken already.
    pub(crate) fn would_wake(&self, key: usize, waker: &Waker) -> bool {
        let known = &self.places[key].waker;
        known.as_ref().is_some_and(|known| known.will_wake(waker))
    }

    /// Puts a newer waker in; hands the old one out.
    pub(crate) fn renew(&mut self, key: usize, waker: Waker) -> Option<Waker> {
        self.places[key].waker.replace(waker)
    }

    /// Gives the place back, and what had been set aside for it. Returns its waker.
    pub(crate) fn leave(&mut self, key: usize) -> Option<Waker> {
        self.unlink(key);
        let place = &mut self.places[key];
        let have = std::mem::take(&mut place.have);
        let lacks = place.want - have;
        if lacks > 0 {
            self.waiting -= 1;
            self.lacking = self.lacking.saturating_sub(lacks);
        }
        self.reserved -= have;
        self.taken -= 1;
        place.next = self.free;
        self.free = key;
        place.waker.take()
    }

    /// The first that waits, and what it still lacks.
    #[inline]
    pub(crate) fn first(&self) -> Option<(usize, usize)> {
        let place = self.places.get(self.line)?;
        Some((self.line, place.want - place.have))
    }

    /// When the first that waits came.
    pub(crate) fn first_arrival(&self) -> Option<u64> {
        self.places.get(self.line).map(|place| place.arrival)
    }

    /// When the last to whom anything was granted came.
    pub(crate) fn last_arrival(&self) -> Option<u64> {
        self.places.get(self.last()).map(|place| place.arrival)
    }

    /// How many that wait came before `arrival`.
    pub(crate) fn older(&self, arrival: u64) -> usize {
        let mut key = self.line;
        let mut count = 0;
        while let Some(place) = self.places.get(key).filter(|p| p.arrival < arrival) {
            count += 1;
            key = place.next;
        }
        count
    }

    /// Sets `amount` more aside for the first that waits; or all for one further back, which is served out of turn. Returns
    /// its waker when that is the first, or the last, that it gets.
    pub(crate) fn grant(&mut self, key: usize, amount: usize) -> Option<Waker> {
        let place = &mut self.places[key];
        let is_first = place.have == 0;
        place.have += amount;
        let is_last = place.have == place.want;
        self.reserved += amount;
        self.lacking = self.lacking.saturating_sub(amount);
        if is_last {
            self.pass(key);
        }
        let place = &mut self.places[key];
        (is_first || is_last).then(|| place.waker.take()).flatten()
    }

    /// Lowers what the first that waits wants to what it has, if that is something.
    pub(crate) fn content(&mut self) -> Option<Waker> {
        let key = self.line;
        let place = self.places.get_mut(key)?;
        if place.have == 0 {
            return None;
        }
        self.lacking = self.lacking.saturating_sub(place.want - place.have);
        place.want = place.have;
        let waker = place.waker.take();
        self.pass(key);
        waker
    }

    /// Takes `amount` back of what was set aside, no more than that is, from the last to whom it was granted (W2). They have
    /// been woken, and will find that they wait.
    pub(crate) fn revoke(&mut self, mut amount: usize) {
        while amount > 0 {
            let key = self.last();
            let place = &mut self.places[key];
            let back = amount.min(place.have);
            place.have -= back;
            amount -= back;
            self.reserved -= back;
            self.lacking = self.lacking.saturating_add(back);
            if key != self.line {
                self.line = key;
                self.waiting += 1;
            }
        }
    }

    /// Hands out the wakers of all who stand in the list; they keep their places.
    pub(crate) fn wakers(&mut self, into: &mut Vec<Waker>) {
        let mut key = self.line;
        while let Some(place) = self.places.get_mut(key) {
            into.extend(place.waker.take());
            key = place.next;
        }
    }

    /// The last to whom anything was granted.
    fn last(&self) -> usize {
        match self.places.get(self.line) {
            Some(place) if place.have > 0 => self.line,
            Some(place) => place.before,
            None => self.tail,
        }
    }

    /// Moves the line past one that has all it wants.
    fn pass(&mut self, key: usize) {
        self.waiting -= 1;
        if key == self.line {
            self.line = self.places[key].next;
            return;
        }
        // Served out of turn: it goes in front of those who wait.
        self.unlink(key);
        let line = self.line;
        let before = std::mem::replace(&mut self.places[line].before, key);
        let place = &mut self.places[key];
        place.before = before;
        place.next = line;
        match self.places.get_mut(before) {
            Some(place) => place.next = key,
            None => self.head = key,
        }
    }

    fn unlink(&mut self, key: usize) {
        let Place { before, next, .. } = self.places[key];
        if self.line == key {
            self.line = next;
        }
        match self.places.get_mut(before) {
            Some(place) => place.next = next,
            None => self.head = next,
        }
        match self.places.get_mut(next) {
            Some(place) => place.before = before,
            None => self.tail = before,
        }
    }
}

#[cfg(all(test, not(any(ringfence_loom, ringfence_shuttle))))]
mod tests {
    use super::*;

    fn join(waiters: &mut Waiters, want: usize) -> usize {
        waiters.join(want, 0, Waker::noop().clone())
    }

    #[test]
    fn what_is_taken_back_is_taken_from_the_last() {
        let mut waiters = Waiters::new();
        let (one, batch) = (join(&mut waiters, 1), join(&mut waiters, 3));
        assert!(waiters.grant(one, 1).is_some());
        assert!(waiters.grant(batch, 2).is_some());
        assert_eq!(waiters.first(), Some((batch, 1)));
        waiters.revoke(1);
        assert_eq!((waiters.have(one), waiters.have(batch)), (1, 1));
        waiters.revoke(2);
        assert_eq!((waiters.have(one), waiters.have(batch)), (0, 0));
        assert_eq!(waiters.first(), Some((one, 1)));
        assert_eq!((waiters.waiting(), waiters.lacking()), (2, 4));
    }

    #[test]
    fn a_batch_that_is_content_lacks_nothing() {
        let mut waiters = Waiters::new();
        let batch = join(&mut waiters, 5);
        join(&mut waiters, 3);
        assert!(waiters.content().is_none(), "it has nothing yet");
        waiters.grant(batch, 2);
        assert_eq!(waiters.lacking(), 6);
        waiters.content();
        assert!(waiters.is_granted(batch));
        assert_eq!((waiters.waiting(), waiters.lacking()), (1, 3));
    }

    #[test]
    fn who_is_served_out_of_turn_waits_no_more() {
        let mut waiters = Waiters::new();
        let [first, second, last] = [1; 3].map(|want| join(&mut waiters, want));
        assert!(waiters.grant(last, 1).is_some());
        assert_eq!(waiters.first(), Some((first, 1)));
        waiters.leave(first);
        waiters.leave(second);
        assert_eq!(waiters.first(), None);
        waiters.revoke(1);
        assert_eq!(waiters.first(), Some((last, 1)));
    }

    #[test]
    fn a_waker_that_is_known_need_not_be_cloned() {
        struct Other;
        impl std::task::Wake for Other {
            fn wake(self: std::sync::Arc<Self>) {}
        }
        let mut waiters = Waiters::new();
        let key = join(&mut waiters, 1);
        assert!(waiters.would_wake(key, Waker::noop()));
        assert!(!waiters.would_wake(key, &std::sync::Arc::new(Other).into()));
        waiters.grant(key, 1);
        assert!(!waiters.would_wake(key, Waker::noop()), "it was woken");
    }
}
