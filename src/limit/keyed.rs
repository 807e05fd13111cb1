//! `KeyedLimiter`: at most so many at once for each key.
//!
//! Y1. A key is in the map as long as somebody waits for it or holds a permit of it, and no longer. Y2. Whoever counts
//! itself in at a key counts itself out, however it ends. Y3. `Hash` and `Eq` of the key run under the lock of the map; its
//! destructor does not. Y4. Where they throw as a permit goes back, the key stays in the map, and nobody is harmed.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;

use crate::limit::concurrency::WaitCancelled;
use crate::limit::gate::{Gate, Wait, checked};
use crate::observe::{DisplacedWhat, displace};
use crate::panic::catch;
use crate::sync::{Arc, Lock};

/// Lets at most so many be in flight at once for each key: for each host, each tenant, each file.
///
/// Keys do not wait for one another, and cost nothing while nobody uses them. Within a key it is a
/// [`Limiter`](crate::Limiter). Clones share the limit. `Hash` and `Eq` of the keys run under a lock: they must not use the
/// limiter themselves.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), ringfence::WaitCancelled> {
/// use ringfence::KeyedLimiter;
///
/// let hosts = KeyedLimiter::new(1);
/// let one = hosts.acquire("one.example").await?;
/// let two = hosts.acquire("two.example").await?; // does not wait for the first
/// assert!(hosts.try_acquire("one.example").is_none());
/// # drop((one, two));
/// # Ok(())
/// # }
/// ```
pub struct KeyedLimiter<K> {
    core: Arc<Keys<K>>,
}

struct Keys<K> {
    map: Lock<Map<K>>,
}

struct Map<K> {
    limit: u64,
    used: HashMap<K, Used>,
}

struct Used {
    gate: Arc<Gate>,
    /// Who waits or holds a permit.
    users: usize,
}

impl<K: Hash + Eq + Clone> KeyedLimiter<K> {
    /// At most `limit` at once for each key; [`usize::MAX`] is no limit.
    ///
    /// # Panics
    ///
    /// If `limit` is 0.
    #[must_use]
    #[track_caller]
    pub fn new(limit: usize) -> Self {
        Self {
            core: Arc::new(Keys {
                map: Lock::new(Map {
                    limit: checked(limit),
                    used: HashMap::new(),
                }),
            }),
        }
    }

    /// Waits for a permit of `key`.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropped, it leaves the line, and a permit that it had been given by then goes to the next.
    ///
    /// # Errors
    ///
    /// [`WaitCancelled`] if the task that waits was asked to end before its turn came.
    pub async fn acquire(&self, key: K) -> Result<KeyedPermit<K>, WaitCancelled> {
        self.acquire_many(key, 1).await
    }

    /// Waits for `n` permits of `key`, all at once; for none, it is ready at once.
    ///
    /// If `n` is more than the limit, it waits until no permit of `key` is out.
    ///
    /// # Cancel safety
    ///
    /// As [`acquire`](Self::acquire).
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire).
    pub async fn acquire_many(&self, key: K, n: u32) -> Result<KeyedPermit<K>, WaitCancelled> {
        // Counted in by now, so that the gate stays; counted out by the drop of this, whatever comes.
        let mut permit = self.enter(key);
        let mut wait = Waiting {
            gate: permit.gate.clone(),
            n,
            wait: Wait::default(),
        };
        let got = std::future::poll_fn(|cx| wait.wait.poll(&wait.gate, n, cx)).await;
        got.map_err(|reason| WaitCancelled { reason })?;
        permit.held = n;
        Ok(permit)
    }

    /// Takes a permit of `key` if one is free and nobody waits for it.
    #[must_use]
    pub fn try_acquire(&self, key: K) -> Option<KeyedPermit<K>> {
        let mut permit = self.enter(key);
        permit.held = u32::from(permit.gate.try_take(1));
        (permit.held > 0).then_some(permit)
    }

    /// Changes the limit of each key, for all clones. A higher one serves as many waiters as it has room for; a lower one admits
    /// nobody until enough permits of that key are back, and takes none away.
    ///
    /// # Panics
    ///
    /// If `limit` is 0.
    #[track_caller]
    pub fn set_limit(&self, limit: usize) {
        let limit = checked(limit);
        let gates: Vec<Arc<Gate>> = {
            let mut map = self.core.map.lock();
            map.limit = limit;
            map.used.values().for_each(|used| used.gate.resize(limit));
            map.used.values().map(|used| used.gate.clone()).collect()
        };
        gates.iter().for_each(|gate| gate.wake());
    }

    /// Returns how many keys are in use.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.core.map.lock().used.len()
    }

    /// Returns how many permits of `key` are out.
    #[must_use]
    pub fn in_flight(&self, key: &K) -> usize {
        self.look(key, |gate| gate.in_flight() as usize)
    }

    /// Returns how many wait for a permit of `key`.
    #[must_use]
    pub fn waiting(&self, key: &K) -> usize {
        self.look(key, Gate::waiting)
    }

    fn look(&self, key: &K, look: impl FnOnce(&Gate) -> usize) -> usize {
        let gate = {
            let map = self.core.map.lock();
            map.used.get(key).map(|used| used.gate.clone())
        };
        gate.map_or(0, |gate| look(&gate))
    }

    fn enter(&self, key: K) -> KeyedPermit<K> {
        let own = key.clone();
        let mut map = self.core.map.lock();
        // A key that is there already is dropped after the lock is given back (Y3).
        if !map.used.contains_key(&own) {
            let gate = Arc::new(Gate::new(map.limit));
            map.used.insert(key, Used { gate, users: 0 });
        }
        let Some(used) = map.used.get_mut(&own) else {
            unreachable!("it is there by now")
        };
        used.users += 1;
        KeyedPermit {
            keys: self.core.clone(),
            gate: used.gate.clone(),
            key: Some(own),
            held: 0,
        }
    }
}

impl<K> Clone for KeyedLimiter<K> {
    fn clone(&self) -> Self {
        Self {
            core: self.core.clone(),
        }
    }
}

impl<K> fmt::Debug for KeyedLimiter<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedLimiter")
            .field("keys", &self.core.map.lock().used.len())
            .finish_non_exhaustive()
    }
}

/// A wait that is given up when it is dropped.
struct Waiting {
    gate: Arc<Gate>,
    n: u32,
    wait: Wait,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.wait.abandon(&self.gate, self.n);
    }
}

/// One or more permits of one key, given back when it is dropped.
#[must_use = "a permit is given back when it is dropped"]
pub struct KeyedPermit<K: Hash + Eq> {
    keys: Arc<Keys<K>>,
    gate: Arc<Gate>,
    key: Option<K>,
    held: u32,
}

impl<K: Hash + Eq> Drop for KeyedPermit<K> {
    fn drop(&mut self) {
        if self.held > 0 {
            self.gate.give(self.held);
        }
        let Some(key) = self.key.take() else { return };
        // The lock is given back before the keys are dropped (Y3).
        let removed = catch(|| {
            let mut map = self.keys.map.lock();
            match map.used.get_mut(&key) {
                Some(used) if used.users > 1 => {
                    used.users -= 1;
                    None
                }
                _ => map.used.remove_entry(&key),
            }
        });
        match removed {
            Ok(removed) => drop(removed),
            Err(panic) => displace(None, None, DisplacedWhat::Panic(panic)), // Y4
        }
    }
}

impl<K: Hash + Eq> fmt::Debug for KeyedPermit<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedPermit").finish_non_exhaustive()
    }
}
