//! Figures.

use std::fmt;

use super::state::State;

/// The figures of a queue, all of one moment: see [`Sender::stats`](super::Sender::stats).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Items in the queue.
    pub len: usize,
    /// Items out as deliveries.
    pub in_delivery: usize,
    /// What counts against the capacity: items here and in delivery by weight, and permits.
    pub used: usize,
    /// The highest that `used` ever was.
    pub peak: usize,
    /// The capacity, in items or in weight; `None` for an unbounded queue, 0 for a rendezvous.
    pub capacity: Option<usize>,
    /// Sender handles.
    pub senders: usize,
    /// Receiver handles.
    pub receivers: usize,
    /// Sends and reservations that wait.
    pub waiting_senders: usize,
    /// Receives that wait.
    pub waiting_receivers: usize,
    /// Items ever accepted.
    pub sent: u64,
    /// Items ever handed out; an item that came back and was handed out again counts again.
    pub received: u64,
    /// Items ever dropped, but for dead ones: see [`Discarded`](super::Discarded).
    pub discarded: u64,
    /// Deliveries that ever came back into the queue.
    pub redelivered: u64,
    /// Items ever given up on.
    pub dead: u64,
}

impl Stats {
    pub(crate) fn of<T>(state: &State<T>) -> Self {
        let totals = state.totals;
        let (senders, receivers) = state.handles();
        Self {
            len: state.len(),
            in_delivery: state.in_delivery,
            used: state.used(),
            peak: totals.peak,
            capacity: Some(state.limit()).filter(|limit| *limit < usize::MAX),
            senders,
            receivers,
            waiting_senders: state.senders.waiting() + state.parked.waiting(),
            waiting_receivers: state.receivers.waiting(),
            sent: totals.sent,
            received: totals.received,
            discarded: totals.discarded,
            redelivered: totals.redelivered,
            dead: totals.dead,
        }
    }

    pub(crate) fn describe(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(name)
            .field("len", &self.len)
            .field("in_delivery", &self.in_delivery)
            .field("capacity", &self.capacity)
            .field("waiting_senders", &self.waiting_senders)
            .field("waiting_receivers", &self.waiting_receivers)
            .finish_non_exhaustive()
    }
}
