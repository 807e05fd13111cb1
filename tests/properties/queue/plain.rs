//! A queue as one would explain it: lists, looked through from the beginning each time.

use ringfence::queue::Overflow;

/// What kind of queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// 0: a rendezvous.
    pub(crate) capacity: usize,
    pub(crate) is_lifo: bool,
    pub(crate) is_ranked: bool,
    pub(crate) overflow: Overflow,
    /// 0: no redelivery.
    pub(crate) attempts: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) id: u64,
    pub(crate) rank: i64,
}

/// What became of a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Given {
    Taken,
    Full,
    Closed,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    item: Item,
    order: i64,
    deliveries: u32,
    /// The send that waits until it is taken.
    send: Option<usize>,
}

struct Send {
    id: usize,
    /// Without one, it is a reservation.
    item: Option<Item>,
    may_go: bool,
}

struct Recv {
    id: usize,
    is_delivery: bool,
    may_go: bool,
}

pub(crate) struct Model {
    shape: Shape,
    items: Vec<Entry>,
    out: Vec<Entry>,
    sends: Vec<Send>,
    recvs: Vec<Recv>,
    senders: usize,
    permits: usize,
    is_closed: bool,
    order: i64,
    pub(crate) discards: Vec<u64>,
}

impl Model {
    pub(crate) fn new(shape: Shape) -> Self {
        Self {
            shape,
            items: Vec::new(),
            out: Vec::new(),
            sends: Vec::new(),
            recvs: Vec::new(),
            senders: 1,
            permits: 0,
            is_closed: false,
            order: 0,
            discards: Vec::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.items.is_empty() && self.out.is_empty()
    }

    fn is_rendezvous(&self) -> bool {
        self.shape.capacity == 0
    }

    fn drains(&self) -> bool {
        self.is_closed || self.senders == 0
    }

    /// Promises count no more: everybody takes what is there.
    fn is_final(&self) -> bool {
        self.drains() && self.out.is_empty() && self.permits == 0
    }

    fn has_ended(&self) -> bool {
        self.drains() && self.is_idle() && self.permits == 0
    }

    fn promised(&self) -> usize {
        self.recvs.iter().filter(|recv| recv.may_go).count()
    }

    fn has_room(&self) -> bool {
        self.lacks() == 0
    }

    /// How many items too many there are for one more.
    fn lacks(&self) -> usize {
        let taken = self.items.len() + self.permits;
        let (taken, room) = if self.is_rendezvous() {
            (taken + self.reserved(), self.recvs.len())
        } else {
            let coming = self.sends.iter().filter(|send| send.may_go).count();
            (taken + self.out.len() + coming, self.shape.capacity)
        };
        (taken + 1).saturating_sub(room)
    }

    /// Reservations that were granted and not fetched.
    fn reserved(&self) -> usize {
        let granted = |send: &&Send| send.item.is_none() && send.may_go;
        self.sends.iter().filter(granted).count()
    }

    /// How many stand in the line for room.
    fn in_line(&self) -> usize {
        let waits = |send: &&Send| !send.may_go && (send.item.is_none() || !self.is_rendezvous());
        self.sends.iter().filter(waits).count()
    }

    /// On a rendezvous: whether there is a receiver for the reservation at that place.
    fn has_receiver(&self, at: usize) -> bool {
        let alone = self.items.iter().filter(|entry| entry.send.is_none());
        let earlier = self.sends[..at].iter().filter(|send| {
            let is_parked = self.items.iter().any(|entry| entry.send == Some(send.id));
            is_parked || send.item.is_none()
        });
        self.permits + alone.count() + earlier.count() < self.recvs.len()
    }

    /// How many items are there for receivers.
    fn receivable(&self) -> usize {
        if self.is_rendezvous() && !self.is_closed {
            let others = self.recvs.len().saturating_sub(self.reserved());
            return self.items.len().min(others);
        }
        self.items.len()
    }

    /// Ranks first; then first in first out, or the other way round.
    fn key(&self, entry: &Entry) -> (i64, i64) {
        let order = if self.shape.is_lifo {
            -entry.order
        } else {
            entry.order
        };
        (entry.item.rank * i64::from(self.shape.is_ranked), order)
    }

    fn next(&self) -> Option<usize> {
        (0..self.items.len()).min_by_key(|at| self.key(&self.items[*at]))
    }

    /// The oldest of the last rank.
    fn oldest(&self) -> Option<usize> {
        let last = self.items.iter().map(|entry| self.key(entry).0).max()?;
        (0..self.items.len())
            .filter(|at| self.key(&self.items[*at]).0 == last)
            .min_by_key(|at| self.items[*at].order)
    }

    fn settle(&mut self) {
        for at in 0..self.sends.len() {
            if self.is_rendezvous() && self.sends[at].item.is_none() {
                self.sends[at].may_go = self.has_receiver(at);
            }
        }
        while self.receivable() < self.promised() {
            let last = self.recvs.iter_mut().rev().find(|recv| recv.may_go);
            last.expect("somebody was promised an item").may_go = false;
        }
        while self.receivable() > self.promised() {
            let Some(first) = self.recvs.iter_mut().find(|recv| !recv.may_go) else {
                break;
            };
            first.may_go = true;
        }
        while !self.is_rendezvous() && self.has_room() {
            let Some(first) = self.sends.iter_mut().find(|send| !send.may_go) else {
                break;
            };
            first.may_go = true;
        }
    }

    fn put(&mut self, item: Item, send: Option<usize>) {
        self.order += 1;
        self.items.push(Entry {
            item,
            order: self.order,
            deliveries: 0,
            send,
        });
        self.settle();
    }

    fn take(&mut self, is_delivery: bool) -> u64 {
        let next = self.next().expect("an item is there");
        let entry = self.items.remove(next);
        if let Some(send) = entry.send {
            let send = self.sends.iter_mut().find(|waiting| waiting.id == send);
            send.expect("it waits").may_go = true;
        }
        if is_delivery {
            self.out.push(Entry {
                send: None,
                ..entry
            });
        }
        self.settle();
        entry.item.id
    }

    pub(crate) fn try_send(&mut self, item: Item) -> Given {
        if self.is_closed {
            return Given::Closed;
        }
        let others = self.in_line();
        if self.has_room() && others == 0 {
            self.put(item, None);
            return Given::Taken;
        }
        match self.shape.overflow {
            Overflow::DropOldest => {
                // As many as it takes, or none.
                let rank = item.rank * i64::from(self.shape.is_ranked);
                let may_give = self.items.iter().filter(|one| self.key(one).0 >= rank);
                let lacks = self.lacks() + others;
                if lacks > may_give.count() {
                    self.discards.push(item.id);
                    return Given::Taken;
                }
                for _ in 0..lacks {
                    let oldest = self.oldest().expect("there are enough");
                    self.discards.push(self.items.remove(oldest).item.id);
                }
                self.put(item, None);
                Given::Taken
            }
            Overflow::DropNewest => {
                self.discards.push(item.id);
                Given::Taken
            }
            _ => Given::Full,
        }
    }

    /// A send that has not been polled.
    pub(crate) fn start_send(&mut self, id: usize, item: Item) {
        self.senders += 1;
        self.sends.push(Send {
            id,
            item: Some(item),
            may_go: false,
        });
    }

    /// A reservation that has not been polled.
    pub(crate) fn start_reserve(&mut self, id: usize) {
        self.senders += 1;
        self.sends.push(Send {
            id,
            item: None,
            may_go: false,
        });
    }

    pub(crate) fn poll_reserve(&mut self, id: usize) -> Option<Given> {
        let at = self.sends.iter().position(|send| send.id == id)?;
        let is_last = at + 1 == self.sends.len();
        let is_alone = self.in_line() == 1 && is_last && self.has_room();
        let given = if self.is_closed {
            Given::Closed
        } else if self.sends[at].may_go || is_alone {
            self.permits += 1;
            Given::Taken
        } else {
            self.settle();
            return None;
        };
        self.sends.remove(at);
        self.settle();
        Some(given)
    }

    /// A permit is used, or dropped.
    pub(crate) fn end_permit(&mut self, item: Option<Item>) {
        self.permits -= 1;
        match item {
            Some(item) => self.put(item, None),
            None => self.settle(),
        }
    }

    pub(crate) fn poll_send(&mut self, id: usize) -> Option<Given> {
        let at = self.sends.iter().position(|send| send.id == id)?;
        let Send { item, may_go, .. } = self.sends[at];
        let item = item.expect("it is no reservation");
        let is_parked = self.items.iter().any(|entry| entry.send == Some(id));
        let result = if self.is_rendezvous() {
            if may_go {
                Some(Given::Taken)
            } else if self.is_closed {
                Some(Given::Closed)
            } else if is_parked {
                None
            } else if self.shape.overflow == Overflow::Wait {
                self.put(item, Some(id));
                None
            } else {
                Some(self.try_send(item))
            }
        } else if self.is_closed {
            Some(Given::Closed)
        } else if may_go {
            self.sends.remove(at);
            self.put(item, None);
            return Some(Given::Taken);
        } else {
            // Without itself, whoever has only just come stands behind everybody.
            let others = self.sends.iter().take(at).any(|send| !send.may_go);
            if others || (at + 1 < self.sends.len()) {
                (self.shape.overflow != Overflow::Wait).then(|| self.send_once(at))
            } else if self.has_room() {
                self.sends.remove(at);
                self.put(item, None);
                return Some(Given::Taken);
            } else {
                (self.shape.overflow != Overflow::Wait).then(|| self.send_once(at))
            }
        };
        if result.is_some() {
            self.sends.retain(|send| send.id != id);
            self.settle();
        }
        result
    }

    fn send_once(&mut self, at: usize) -> Given {
        let send = self.sends.remove(at);
        self.try_send(send.item.expect("it is no reservation"))
    }

    pub(crate) fn drop_send(&mut self, id: usize) {
        self.items.retain(|entry| entry.send != Some(id));
        self.sends.retain(|send| send.id != id);
        self.settle();
    }

    pub(crate) fn can_send(&self, id: usize) -> bool {
        let send = self.sends.iter().find(|send| send.id == id);
        send.is_some_and(|send| send.may_go || self.is_closed)
    }

    pub(crate) fn sender_gone(&mut self) {
        self.senders -= 1;
    }

    fn has_item(&self) -> bool {
        if self.is_final() {
            !self.items.is_empty()
        } else {
            self.items.len() > self.promised() && self.recvs.iter().all(|recv| recv.may_go)
        }
    }

    pub(crate) fn try_recv(&mut self) -> Option<u64> {
        self.has_item().then(|| self.take(false))
    }

    pub(crate) fn start_recv(&mut self, id: usize, is_delivery: bool) {
        let reserves = self.is_rendezvous() && self.in_line() > 0 && !self.is_closed;
        if self.has_item() && !reserves {
            // It takes one at once, in front of those who were promised one already.
            self.recvs.insert(
                0,
                Recv {
                    id,
                    is_delivery,
                    may_go: true,
                },
            );
            return;
        }
        self.recvs.push(Recv {
            id,
            is_delivery,
            may_go: false,
        });
    }

    pub(crate) fn poll_recv(&mut self, id: usize) -> Option<Option<u64>> {
        let at = self.recvs.iter().position(|recv| recv.id == id)?;
        let may_go = self.recvs[at].may_go || self.is_final();
        if may_go && !self.items.is_empty() {
            let recv = self.recvs.remove(at);
            return Some(Some(self.take(recv.is_delivery)));
        }
        if self.has_ended() {
            self.recvs.remove(at);
            return Some(None);
        }
        self.settle();
        None
    }

    pub(crate) fn drop_recv(&mut self, id: usize) {
        self.recvs.retain(|recv| recv.id != id);
        self.settle();
    }

    pub(crate) fn is_promised(&self, id: usize) -> bool {
        let recv = self.recvs.iter().find(|recv| recv.id == id);
        self.is_final() || recv.is_some_and(|recv| recv.may_go) && !self.items.is_empty()
    }

    /// How many receives must have been woken, at least.
    pub(crate) fn recvs_to_wake(&self) -> usize {
        self.receivable().min(self.recvs.len())
    }

    pub(crate) fn finish(&mut self, id: u64, is_done: bool) {
        let at = self.out.iter().position(|entry| entry.item.id == id);
        let mut entry = self.out.remove(at.expect("it is out"));
        entry.deliveries += 1;
        if self.shape.attempts > 0 && !is_done {
            if entry.deliveries >= self.shape.attempts {
                self.discards.push(id);
            } else {
                self.items.push(entry);
            }
        }
        self.settle();
    }

    pub(crate) fn feed(&mut self, item: Item) -> Given {
        if self.is_closed {
            return Given::Closed;
        }
        self.put(item, None);
        Given::Taken
    }

    pub(crate) fn close(&mut self) {
        self.is_closed = true;
        self.items.retain(|entry| entry.send.is_none());
        self.settle();
    }
}
