//! Seeds that nobody chose.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

use crate::sync::thread_local;

thread_local! {
    static NEXT: Cell<u64> = Cell::new(RandomState::new().hash_one(std::thread::current().id()));
}

/// Returns a seed that no other run has. Random once a thread; from there on counting is enough, since the generator mixes.
pub(super) fn unlike_any_other() -> u64 {
    NEXT.with(|next| {
        // An odd step, and not that of the generator, whose streams would be shifts of one another.
        let seed = next.get().wrapping_add(0xD1B5_4A32_D192_ED03);
        next.set(seed);
        seed
    })
}
