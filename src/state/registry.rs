//! Where parked children can be found: one entry a child, made when it first has to wait.
//!
//! R1. A child is registered from its first `Pending` on, or earlier if it was named, singled out or given a seat; a child
//! that never waits never comes here. R2. The flag that forces is set before any shard is locked by whoever wakes, and looked at
//! by whoever registers after the shard was locked: either the waker is found, or the flag is seen. R3. Wakers are woken
//! and dropped outside the locks. R4. An entry is taken out by its child, once more when it is counted
//! out if anybody was singled out, or with all others when the group is closed.
//! R5. The shards beyond the first are made under the lock of the first, and looked for after it was locked: R2 holds for
//! them, too.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::panic::Location;
use std::task::Waker;
use std::time::Instant;

use crate::detail::WaitsFor;
use crate::state::owner::Seat;
use crate::state::view::{Detail, Seen};
use crate::sync::{Arc, Lock, OnceLock, PlainArc};

/// So many consecutive children share a shard: a small group has one, and workers that go through a large one rarely meet.
const BLOCK: u64 = if cfg!(ringfence_loom) { 1 } else { 32 };
const SHARDS: u64 = 8;

/// What was asked of one child in particular.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mark {
    #[default]
    None,
    Signalled,
    Forced,
}

/// One cache line with its key.
#[derive(Default)]
pub(crate) struct Entry {
    waker: Option<Waker>,
    location: Option<&'static Location<'static>>,
    pub(crate) since: Option<Instant>,
    rare: Option<Box<Rare>>,
    pub(crate) mark: Mark,
}

#[derive(Default)]
struct Rare {
    name: Option<PlainArc<str>>,
    seat: Option<Arc<Seat>>,
    detail: Option<Detail>,
}

impl Entry {
    pub(crate) fn name(&self) -> Option<&PlainArc<str>> {
        self.rare.as_ref()?.name.as_ref()
    }

    fn raise(&mut self, mark: Mark) {
        self.mark = self.mark.max(mark);
        if let Some(seat) = self.rare.as_ref().and_then(|rare| rare.seat.as_ref()) {
            seat.mark();
        }
    }
}

#[derive(Default)]
pub(crate) struct SerialHasher(u64);

impl Hasher for SerialHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }
    fn write_u64(&mut self, serial: u64) {
        // The children of a shard get consecutive buckets, so that its table is walked like an array; the top seven bits,
        // which the table compares first, are mixed (Fibonacci hashing).
        let place = serial / (BLOCK * SHARDS) * BLOCK + serial % BLOCK;
        let mixed = place.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = place | (mixed & 0xFE00_0000_0000_0000);
    }
}

type Shard = HashMap<u64, Entry, BuildHasherDefault<SerialHasher>>;

pub(crate) struct Registry {
    first: Lock<Shard>,
    /// Made for the first child beyond the first block.
    others: OnceLock<Box<[Lock<Shard>; SHARDS as usize - 1]>>,
}

impl Registry {
    pub(crate) fn new() -> Self {
        Self {
            first: Lock::new(Shard::default()),
            others: OnceLock::new(),
        }
    }

    fn shard(&self, serial: u64) -> &Lock<Shard> {
        match (serial / BLOCK % SHARDS) as usize {
            0 => &self.first,
            other => &self.others()[other - 1],
        }
    }

    fn others(&self) -> &[Lock<Shard>; SHARDS as usize - 1] {
        self.others.get().unwrap_or_else(|| {
            let _first = self.first.lock(); // R5
            let make = || Box::new(std::array::from_fn(|_| Lock::new(Shard::default())));
            self.others.get_or_init(make)
        })
    }

    /// Iterates over all shards; looks for those beyond the first when it has come past that one (R5).
    fn shards(&self) -> impl Iterator<Item = &Lock<Shard>> {
        let others = || {
            self.others
                .get()
                .into_iter()
                .flat_map(|others| others.iter())
        };
        std::iter::once(&self.first).chain(std::iter::once_with(others).flatten())
    }

    /// Registers a parked child, who looks whether it has to end after that (R2).
    pub(crate) fn park(
        &self,
        serial: u64,
        waker: &Waker,
        location: &'static Location<'static>,
        since: Option<Instant>,
    ) {
        let waker = waker.clone();
        let mut shard = self.shard(serial).lock();
        let entry = shard.entry(serial).or_default();
        entry.location = Some(location);
        entry.since = since;
        let old = entry.waker.replace(waker);
        drop(shard);
        drop(old);
    }

    pub(crate) fn name(&self, serial: u64, name: PlainArc<str>) {
        let mut shard = self.shard(serial).lock();
        let entry = shard.entry(serial).or_default();
        entry.rare.get_or_insert_default().name = Some(name);
    }

    /// Notes the seat of a child, which is marked from now on when the child is.
    pub(crate) fn seat(&self, serial: u64, seat: Arc<Seat>) {
        let mut shard = self.shard(serial).lock();
        let entry = shard.entry(serial).or_default();
        entry.rare.get_or_insert_default().seat = Some(seat);
        if entry.mark > Mark::None {
            entry.raise(Mark::None);
        }
    }

    pub(crate) fn name_of(&self, serial: u64) -> Option<PlainArc<str>> {
        self.shard(serial).lock().get(&serial)?.name().cloned()
    }

    pub(crate) fn mark(&self, serial: u64) -> Mark {
        self.shard(serial)
            .lock()
            .get(&serial)
            .map_or(Mark::None, |entry| entry.mark)
    }

    /// Singles a child out, also one that has not been here yet. Returns its waker if it is to be woken.
    pub(crate) fn single_out(&self, serial: u64, mark: Mark) -> Option<Waker> {
        let mut shard = self.shard(serial).lock();
        let entry = shard.entry(serial).or_default();
        entry.raise(mark);
        if entry.mark == Mark::Forced {
            entry.waker.take()
        } else {
            None
        }
    }

    /// Raises a child's mark from signalled to forced. One that has ended has no entry, and must not get one again.
    pub(crate) fn force(&self, serial: u64) -> Option<Waker> {
        let mut shard = self.shard(serial).lock();
        let entry = shard.get_mut(&serial)?;
        entry.raise(Mark::Forced);
        entry.waker.take()
    }

    /// Takes a child's entry out, at its end.
    pub(crate) fn remove(&self, serial: u64) -> Option<Entry> {
        self.shard(serial).lock().remove(&serial)
    }

    /// Wakes all registered children with a serial below `cut`. The flag that they will look at is set already (R2).
    pub(crate) fn wake_below(&self, cut: u64, mut wake: impl FnMut(Waker)) {
        for shard in self.shards() {
            let wakers: Vec<Waker> = {
                let mut shard = shard.lock();
                let below = shard.iter_mut().filter(|(serial, _)| **serial < cut);
                below.filter_map(|(_, entry)| entry.waker.take()).collect()
            };
            wakers.into_iter().for_each(&mut wake);
        }
    }

    /// Takes a child's entry out that has ended but for what it left behind: whoever looks for those who hold up a shutdown finds
    /// it all the same, and what it left behind its name.
    pub(crate) fn linger(
        &self,
        serial: u64,
        location: &'static Location<'static>,
    ) -> Option<Entry> {
        let mut shard = self.shard(serial).lock();
        let ended = shard.remove(&serial);
        let entry = shard.entry(serial).or_default();
        entry.location = Some(location);
        if let Some(name) = ended.as_ref().and_then(Entry::name) {
            entry.rare.get_or_insert_default().name = Some(name.clone());
        }
        ended
    }

    /// Enters somebody who is no task.
    pub(crate) fn enter(
        &self,
        serial: u64,
        name: Option<PlainArc<str>>,
        location: &'static Location<'static>,
    ) {
        let rare = name.map(|name| {
            Box::new(Rare {
                name: Some(name),
                ..Rare::default()
            })
        });
        let entry = Entry {
            location: Some(location),
            rare,
            ..Entry::default()
        };
        self.shard(serial).lock().insert(serial, entry);
    }

    /// Notes a poll of a member, and what it waits for now.
    pub(crate) fn note(&self, serial: u64, waits_for: Option<WaitsFor>) {
        let mut shard = self.shard(serial).lock();
        let rare = shard
            .entry(serial)
            .or_default()
            .rare
            .get_or_insert_default();
        let detail = rare.detail.get_or_insert_default();
        detail.polls += 1;
        detail.waits_for = waits_for;
    }

    /// Returns what is there, one shard after another.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        let mut all = Vec::new();
        for shard in self.shards() {
            let shard = shard.lock();
            all.extend(shard.iter().map(|(serial, entry)| Seen {
                serial: *serial,
                name: entry.name().cloned(),
                location: entry.location,
                since: entry.since,
                mark: entry.mark,
                detail: entry.rare.as_ref().and_then(|rare| rare.detail),
            }));
        }
        all
    }

    /// Takes all entries out, when nobody is left to do it.
    pub(crate) fn clear(&self) {
        for shard in self.shards() {
            let entries = std::mem::take(&mut *shard.lock());
            drop(entries);
        }
    }
}
