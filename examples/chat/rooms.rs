//! Who is where, and hears what is said there.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ringfence::queue::{self, Receiver, Sender};
use tokio_tungstenite::tungstenite::Message;

/// How many messages wait for one who reads slowly.
const OUTBOX: usize = 256;

type Members = HashMap<u64, Sender<Message>>;

/// The rooms that somebody is in.
#[derive(Default)]
pub(crate) struct Rooms {
    rooms: Mutex<HashMap<Arc<str>, Members>>,
    next: AtomicU64,
    missed: AtomicU64,
}

/// A place in a room: free again when this is dropped, whatever has dropped it.
pub(crate) struct Seat {
    rooms: Arc<Rooms>,
    room: Arc<str>,
    who: Arc<str>,
    number: u64,
    outbox: Sender<Message>,
}

impl Rooms {
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Members>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a seat, and returns it with what is to be written to whoever sits there. That ends with the seat.
    pub(crate) fn join(
        self: &Arc<Self>,
        room: Arc<str>,
        who: Arc<str>,
    ) -> (Seat, Receiver<Message>) {
        let (outbox, lines) = queue::bounded(OUTBOX);
        let number = self.next.fetch_add(1, Relaxed);
        self.lock()
            .entry(room.clone())
            .or_default()
            .insert(number, outbox.clone());
        let seat = Seat {
            rooms: self.clone(),
            room,
            who,
            number,
            outbox,
        };
        (seat, lines)
    }

    /// Returns how many rooms there are, and how many people are in them.
    pub(crate) fn len(&self) -> (usize, usize) {
        let rooms = self.lock();
        (rooms.len(), rooms.values().map(HashMap::len).sum())
    }

    /// Returns how many lines were missed by those who read too slowly.
    pub(crate) fn missed(&self) -> u64 {
        self.missed.load(Relaxed)
    }
}

impl Seat {
    pub(crate) fn room(&self) -> &Arc<str> {
        &self.room
    }

    pub(crate) fn who(&self) -> &Arc<str> {
        &self.who
    }

    /// Tells the others. Who does not read misses it, and holds up nobody.
    pub(crate) fn say(&self, text: &str) {
        let line = Message::text(format!("{}: {text}", self.who));
        let rooms = self.rooms.lock();
        let members = rooms.get(&self.room).into_iter().flatten();
        for (_, outbox) in members.filter(|(number, _)| **number != self.number) {
            if outbox.try_send(line.clone()).is_err() {
                self.rooms.missed.fetch_add(1, Relaxed);
            }
        }
    }

    /// Tells whoever sits here what must not be missed: waits for room.
    pub(crate) async fn tell(&self, message: Message) {
        drop(self.outbox.send(message).await); // gone: nobody is left to be told
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut rooms = self.rooms.lock();
        if let Some(members) = rooms.get_mut(&self.room) {
            members.remove(&self.number);
            if members.is_empty() {
                rooms.remove(&self.room);
            }
        }
    }
}
