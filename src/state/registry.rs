//! Where parked children can be found: one entry a child, made when it first has to wait.
//!
//! R1. A child is registered from its first `Pending` on, or earlier if it was named or singled out; a child that never
//! waits never comes here. R2. The flag that forces is set before any shard is locked by whoever wakes, and looked at
//! by whoever registers while the shard is locked: either the waker is found, or the flag is seen. R3. Wakers are woken
//! and dropped outside the locks.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::panic::Location;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use crate::sync::Lock;

/// Consecutive children go to different shards, so that workers rarely meet.
const SHARDS: usize = 8;

/// What was asked of one child in particular.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mark {
    #[default]
    None,
    Signalled,
    Forced,
}

#[derive(Default)]
pub(crate) struct Entry {
    waker: Option<Waker>,
    pub(crate) name: Option<Arc<str>>,
    location: Option<&'static Location<'static>>,
    pub(crate) since: Option<Instant>,
    pub(crate) mark: Mark,
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
        // Consecutive serials get consecutive buckets, so that the table is walked like an array; the top seven bits, which
        // the table compares first, are mixed (Fibonacci hashing).
        let place = serial / SHARDS as u64;
        let mixed = place.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = place | (mixed & 0xFE00_0000_0000_0000);
    }
}

type Shard = HashMap<u64, Entry, BuildHasherDefault<SerialHasher>>;

pub(crate) struct Registry([Lock<Shard>; SHARDS]);

impl Registry {
    pub(crate) fn new() -> Self {
        Self(std::array::from_fn(|_| Lock::new(Shard::default())))
    }

    fn shard(&self, serial: u64) -> &Lock<Shard> {
        &self.0[serial as usize % SHARDS]
    }

    /// Registers a parked child, unless `forced` says, under the lock, that it should not be parked at all (R2).
    pub(crate) fn park(
        &self,
        serial: u64,
        waker: &Waker,
        location: &'static Location<'static>,
        since: Option<Instant>,
        forced: impl FnOnce(Mark) -> bool,
    ) -> bool {
        let waker = waker.clone();
        let mut shard = self.shard(serial).lock();
        let mark = shard.get(&serial).map_or(Mark::None, |entry| entry.mark);
        if forced(mark) {
            drop(shard);
            return false;
        }
        let entry = shard.entry(serial).or_default();
        entry.location = Some(location);
        entry.since = since;
        entry.waker = Some(waker);
        true
    }

    pub(crate) fn name(&self, serial: u64, name: Arc<str>) {
        self.shard(serial).lock().entry(serial).or_default().name = Some(name);
    }

    pub(crate) fn name_of(&self, serial: u64) -> Option<Arc<str>> {
        self.shard(serial).lock().get(&serial)?.name.clone()
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
        entry.mark = entry.mark.max(mark);
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
        entry.mark = Mark::Forced;
        entry.waker.take()
    }

    /// Takes a child's entry out, at its end.
    pub(crate) fn remove(&self, serial: u64) -> Option<Entry> {
        self.shard(serial).lock().remove(&serial)
    }

    /// Wakes all registered children with a serial below `cut`. The flag that they will look at is set already (R2).
    pub(crate) fn wake_below(&self, cut: u64, mut wake: impl FnMut(Waker)) {
        for shard in &self.0 {
            let wakers: Vec<Waker> = {
                let mut shard = shard.lock();
                let below = shard.iter_mut().filter(|(serial, _)| **serial < cut);
                below.filter_map(|(_, entry)| entry.waker.take()).collect()
            };
            wakers.into_iter().for_each(&mut wake);
        }
    }
}
