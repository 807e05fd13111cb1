//! Where groups are found by whoever looks at all of them: see [`snapshot`](crate::snapshot).
//!
//! L1. A group is listed from the first wait of its scope on, or from its making if it is long-lived: a scope that never
//! waits never comes here. L2. It is taken out when nobody has it any more. L3. The lists keep nobody alive, and nothing is
//! dropped under their locks.

use tokio::runtime::Id;

use crate::state::Core;
use crate::sync::Arc;

#[cfg(not(any(ringfence_loom, ringfence_shuttle)))]
mod imp {
    use std::collections::HashMap;
    use std::hash::{BuildHasherDefault, Hasher};
    use std::sync::{PoisonError, Weak};

    use super::{Arc, Core, Id};
    use crate::sync::{Ordering, PlainByte, PlainMutex};

    /// Neighbours go to different lists, so that scopes opened side by side do not meet.
    const LISTS: usize = 16;

    #[derive(Default)]
    struct IdHasher(u64);

    impl Hasher for IdHasher {
        fn finish(&self) -> u64 {
            self.0
        }
        fn write(&mut self, bytes: &[u8]) {
            for byte in bytes {
                self.write_u64(u64::from(*byte));
            }
        }
        fn write_u64(&mut self, id: u64) {
            // Fibonacci hashing: the table looks at the lowest bits and at the top seven.
            self.0 = (id / LISTS as u64)
                .wrapping_mul(0x9E37_79B9_7F4A_7C15)
                .rotate_left(32);
        }
    }

    type List = HashMap<u64, (Weak<Core>, Option<Id>), BuildHasherDefault<IdHasher>>;

    static ALL: [PlainMutex<List>; LISTS] =
        [const { PlainMutex::new(List::with_hasher(BuildHasherDefault::new())) }; LISTS];

    fn with<R>(id: u64, change: impl FnOnce(&mut List) -> R) -> R {
        let list = &ALL[id as usize % LISTS];
        change(&mut list.lock().unwrap_or_else(PoisonError::into_inner))
    }

    const LISTED: u8 = 1;
    const BODY_IS_OVER: u8 = 2;
    const NO_BODY: u8 = 4;

    /// Whether a group is listed, and has a body. Set by whoever makes the group, and by whoever polls its scope.
    pub(crate) struct Listed(PlainByte);

    impl Listed {
        pub(crate) fn new() -> Self {
            Self(PlainByte::new(0))
        }

        fn has(&self, flags: u8) -> bool {
            self.0.load(Ordering::Relaxed) & flags != 0
        }

        #[inline]
        pub(crate) fn is_set(&self) -> bool {
            self.has(LISTED)
        }

        /// Notes that the place of the body in the word is given up.
        pub(crate) fn end_body(&self) {
            // Nobody else sets anything meanwhile.
            let flags = self.0.load(Ordering::Relaxed);
            self.0.store(flags | BODY_IS_OVER, Ordering::Relaxed);
        }

        pub(crate) fn body_is_over(&self) -> bool {
            self.has(BODY_IS_OVER)
        }

        pub(crate) fn has_body(&self) -> bool {
            !self.has(BODY_IS_OVER | NO_BODY)
        }
    }

    pub(crate) fn add_long_lived(core: &Arc<Core>, runtime: Option<Id>) {
        core.listed.0.store(NO_BODY, Ordering::Relaxed);
        add(core, runtime);
    }

    #[cold]
    pub(crate) fn add(core: &Arc<Core>, runtime: Option<Id>) {
        let entry = (Arc::downgrade(core), runtime);
        let flags = core.listed.0.load(Ordering::Relaxed);
        core.listed.0.store(flags | LISTED, Ordering::Relaxed);
        with(core.id, |list| list.insert(core.id, entry));
    }

    #[cold]
    pub(crate) fn remove(core: &Core) {
        let entry = with(core.id, |list| list.remove(&core.id));
        drop(entry);
    }

    /// Returns all groups, with the runtime that their children are spawned on.
    pub(crate) fn all() -> Vec<(Arc<Core>, Option<Id>)> {
        let mut found = Vec::new();
        for list in &ALL {
            let list = list.lock().unwrap_or_else(PoisonError::into_inner);
            let alive = |(core, runtime): &(Weak<Core>, _)| Some((core.upgrade()?, *runtime));
            found.extend(list.values().filter_map(alive));
        }
        found
    }

    #[cfg(test)]
    mod tests {
        use crate::state::{Core, Settings};

        #[test]
        fn a_group_is_listed_as_long_as_somebody_has_it() {
            let outer = Core::new(Settings::default(), None);
            let inner = Core::new(Settings::default(), Some(outer.clone()));
            let ids = [outer.id, inner.id];
            let listed = || ids.map(|id| super::with(id, |list| list.contains_key(&id)));
            assert_eq!(listed(), [false, false]);
            super::add(&outer, None);
            super::add_long_lived(&inner, None);
            assert_eq!(listed(), [true, true]);
            drop(outer);
            assert_eq!(listed(), [true, true], "the one inside has it");
            drop(inner);
            assert_eq!(listed(), [false, false]);
        }
    }
}

/// There is nothing to look at in these lanes.
#[cfg(any(ringfence_loom, ringfence_shuttle))]
mod imp {
    use super::{Arc, Core, Id};

    pub(crate) struct Listed;

    impl Listed {
        pub(crate) fn new() -> Self {
            Self
        }
        pub(crate) fn is_set(&self) -> bool {
            true
        }
        pub(crate) fn end_body(&self) {}
        pub(crate) fn body_is_over(&self) -> bool {
            false
        }
        pub(crate) fn has_body(&self) -> bool {
            true
        }
    }

    pub(crate) fn add(_: &Arc<Core>, _: Option<Id>) {}
    pub(crate) fn add_long_lived(_: &Arc<Core>, _: Option<Id>) {}
    pub(crate) fn remove(_: &Core) {}
    pub(crate) fn all() -> Vec<(Arc<Core>, Option<Id>)> {
        Vec::new()
    }
}

pub(crate) use imp::{Listed, add, add_long_lived, all, remove};
