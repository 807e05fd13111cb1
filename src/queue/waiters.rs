//! Who waits on one side of a queue: a FIFO list in a slab, so that no wait allocates.
//!
//! | state of a place | in the list | has a waker | means |
//! |---|---|---|---|
//! | free | no | no | may be handed out |
//! | waiting | yes | since it last looked, until it is woken | `have < want` |
//! | granted | no | no | `have == want`: what it waits for is set aside for it |
//!
//! W1. A place belongs to one future, from `join` to `leave`, so an index is name enough. W2. The list is in the order of
//! arrival; who is sent back (its grant was void) goes to the front. W3. `reserved` is the sum of every `have`. W4. Nothing
//! here wakes, clones or drops a waker: it is handed out, and that is done outside the lock.

use std::task::Waker;

/// No place.
const NONE: usize = usize::MAX;

struct Place {
    waker: Option<Waker>,
    want: usize,
    have: usize,
    is_listed: bool,
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
    waiting: usize,
    taken: usize,
    reserved: usize,
}

impl Waiters {
    pub(crate) const fn new() -> Self {
        Self {
            places: Vec::new(),
            free: NONE,
            head: NONE,
            tail: NONE,
            waiting: 0,
            taken: 0,
            reserved: 0,
        }
    }

    /// How many stand in the list.
    #[inline]
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many there are, granted ones included.
    pub(crate) fn len(&self) -> usize {
        self.taken
    }

    /// What is set aside for them, in all (W3).
    #[inline]
    pub(crate) fn reserved(&self) -> usize {
        self.reserved
    }

    pub(crate) fn have(&self, key: usize) -> usize {
        self.places[key].have
    }

    pub(crate) fn is_granted(&self, key: usize) -> bool {
        let place = &self.places[key];
        place.have == place.want
    }

    /// Takes a place at the end of the list.
    pub(crate) fn join(&mut self, want: usize, waker: Waker) -> usize {
        let place = Place {
            waker: Some(waker),
            want,
            have: 0,
            is_listed: false,
            next: NONE,
            before: NONE,
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
        self.taken += 1;
        self.link_last(key);
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

    /// Gives the place back. Returns what had been set aside for it, and its waker.
    pub(crate) fn leave(&mut self, key: usize) -> (usize, Option<Waker>) {
        self.unlink(key);
        let place = &mut self.places[key];
        let have = std::mem::take(&mut place.have);
        let waker = place.waker.take();
        place.next = self.free;
        self.free = key;
        self.taken -= 1;
        self.reserved -= have;
        (have, waker)
    }

    /// The first of the list, and what it still lacks.
    #[inline]
    pub(crate) fn first(&self) -> Option<(usize, usize)> {
        let place = self.places.get(self.head)?;
        Some((self.head, place.want - place.have))
    }

    /// Sets `amount` more aside for one of the list. Returns its waker when that is the first, or the last, that it gets.
    pub(crate) fn grant(&mut self, key: usize, amount: usize) -> Option<Waker> {
        let place = &mut self.places[key];
        let is_first = place.have == 0;
        place.have += amount;
        self.reserved += amount;
        let is_last = place.have == place.want;
        if is_last {
            self.unlink(key);
        }
        let place = &mut self.places[key];
        (is_first || is_last).then(|| place.waker.take()).flatten()
    }

    /// Lowers what the first of the list wants to what it has, if that is something.
    pub(crate) fn content(&mut self) -> Option<Waker> {
        let key = self.head;
        let place = self.places.get_mut(key)?;
        if place.have == 0 {
            return None;
        }
        place.want = place.have;
        let waker = place.waker.take();
        self.unlink(key);
        waker
    }

    /// Takes back what was set aside, and puts the place at the front of the list (W2).
    pub(crate) fn send_back(&mut self, key: usize) {
        self.unlink(key);
        let place = &mut self.places[key];
        self.reserved -= std::mem::take(&mut place.have);
        place.is_listed = true;
        place.before = NONE;
        place.next = self.head;
        match self.places.get_mut(self.head) {
            Some(head) => head.before = key,
            None => self.tail = key,
        }
        self.head = key;
        self.waiting += 1;
    }

    /// Hands out the wakers of all who stand in the list; they keep their places.
    pub(crate) fn wakers(&mut self, into: &mut Vec<Waker>) {
        let mut key = self.head;
        while let Some(place) = self.places.get_mut(key) {
            into.extend(place.waker.take());
            key = place.next;
        }
    }

    fn link_last(&mut self, key: usize) {
        let tail = self.tail;
        let place = &mut self.places[key];
        place.is_listed = true;
        place.before = tail;
        place.next = NONE;
        match self.places.get_mut(tail) {
            Some(last) => last.next = key,
            None => self.head = key,
        }
        self.tail = key;
        self.waiting += 1;
    }

    fn unlink(&mut self, key: usize) {
        let place = &mut self.places[key];
        if !std::mem::take(&mut place.is_listed) {
            return;
        }
        let (before, next) = (place.before, place.next);
        match self.places.get_mut(before) {
            Some(place) => place.next = next,
            None => self.head = next,
        }
        match self.places.get_mut(next) {
            Some(place) => place.before = before,
            None => self.tail = before,
        }
        self.waiting -= 1;
    }
}
