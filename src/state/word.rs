//! The group's one atomic word: flags and two counts.
//!
//! ```text
//! bit   0        CANCELLED   cancel was asked for: no new children, tokens fire
//! bit   1        FORCED      children and body end where they are parked (implies CANCELLED)
//! bit   2        ATTENTION   some child was singled out: look beyond this word
//! bit   3        ORPHANED    the scope future is gone: the last one out settles with the adopter
//! bit   4        SHUT        no new children, for no other reason
//! bits  5..34    normal      the body, its normal children, and scopes adopted by the group
//! bits 34..63    background  background children
//! ```
//!
//! | state   | flags        | counts                 | spawn    | left by                              |
//! |---------|--------------|------------------------|----------|--------------------------------------|
//! | open    | none of CANCELLED, SHUT | normal ≥ 1  | accepted | cancel, failure, last normal one out, shut |
//! | closing | CANCELLED or SHUT, or normal = 0 | live ≥ 1 | refused | last one out                   |
//! | closed  | any          | live = 0               | refused  | nothing: final                       |
//!
//! W1. Flags are only ever set. W2. Whoever adds to a count takes it off again exactly once.
//! W3. A group is open exactly when no flag closes it and `normal > 0`. A refused entry leaves the word as it is: were it
//! counted for a moment, the next one would find `normal > 0` again, and a closed group open.
//! W4. Once closing, no entry is accepted; once closed, nobody is counted in (from W1 and W3: `normal = 0` is never left,
//! but by a scope that is dropped after its body was counted out, and that has cancelled the group before).

use crate::sync::{AtomicU64, Ordering};

const CANCELLED: u64 = 1;
const FORCED: u64 = 1 << 1;
const ATTENTION: u64 = 1 << 2;
const ORPHANED: u64 = 1 << 3;
const SHUT: u64 = 1 << 4;
const COUNT_BITS: u32 = 29;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
const NORMAL_SHIFT: u32 = 5;
const BACKGROUND_SHIFT: u32 = NORMAL_SHIFT + COUNT_BITS;
/// Half of what a count can hold: the other half is room for adopted scopes, which are never refused.
const MOST: u64 = COUNT_MASK / 2;

/// Which of the two counts a member is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Normal,
    Background,
}

impl Kind {
    const fn unit(self) -> u64 {
        match self {
            Self::Normal => 1 << NORMAL_SHIFT,
            Self::Background => 1 << BACKGROUND_SHIFT,
        }
    }
}

/// One reading of the word.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading(u64);

impl Reading {
    pub(crate) const fn is_cancelled(self) -> bool {
        self.0 & CANCELLED != 0
    }

    pub(crate) const fn is_forced(self) -> bool {
        self.0 & FORCED != 0
    }

    /// Whether a child has to look beyond the word: one test for the common answer, no.
    pub(crate) const fn is_calm(self) -> bool {
        self.0 & (FORCED | ATTENTION) == 0
    }

    /// Whether no child was singled out.
    pub(crate) const fn is_undivided(self) -> bool {
        self.0 & ATTENTION == 0
    }

    pub(crate) const fn is_orphaned(self) -> bool {
        self.0 & ORPHANED != 0
    }

    pub(crate) const fn is_open(self) -> bool {
        self.0 & (CANCELLED | SHUT) == 0 && self.normal() > 0
    }

    pub(crate) const fn normal(self) -> u64 {
        (self.0 >> NORMAL_SHIFT) & COUNT_MASK
    }

    pub(crate) const fn background(self) -> u64 {
        (self.0 >> BACKGROUND_SHIFT) & COUNT_MASK
    }

    pub(crate) const fn live(self) -> u64 {
        self.normal() + self.background()
    }
}

impl std::fmt::Debug for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reading")
            .field("cancelled", &self.is_cancelled())
            .field("forced", &self.is_forced())
            .field("orphaned", &self.is_orphaned())
            .field("normal", &self.normal())
            .field("background", &self.background())
            .finish()
    }
}

/// What came of an attempt to enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Accepted,
    /// The group is closing.
    Refused,
    /// The count is full.
    Full,
}

pub(crate) struct Word(AtomicU64);

impl Word {
    /// An open group with one normal member: its body.
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(Kind::Normal.unit()))
    }

    pub(crate) fn read(&self) -> Reading {
        // Acquire pairs with the AcqRel in `leave` (what the children wrote is seen by whoever finds them gone) and in
        // `set` (who sees a flag sees the reason behind it).
        Reading(self.0.load(Ordering::Acquire))
    }

    /// Counts a newcomer in, or leaves the word as it is (W3).
    pub(crate) fn enter(&self, kind: Kind) -> Entry {
        // Relaxed as in `Arc::clone`: an accepted newcomer publishes nothing, and acceptance is decided by the place
        // of this operation among all others on this one word.
        let mut now = Reading(self.0.load(Ordering::Relaxed));
        loop {
            if !now.is_open() {
                return Entry::Refused;
            }
            if now.normal() >= MOST || now.background() >= MOST {
                return Entry::Full;
            }
            match self.0.compare_exchange_weak(
                now.0,
                now.0 + kind.unit(),
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Entry::Accepted,
                Err(seen) => now = Reading(seen),
            }
        }
    }

    /// Counts in somebody who is inside already, on behalf of another: never refused.
    pub(crate) fn adopt(&self) {
        self.0.fetch_add(Kind::Normal.unit(), Ordering::Relaxed);
    }

    /// Counts in on behalf of another unless the group is closed. Returns where.
    pub(crate) fn try_adopt(&self) -> Option<Kind> {
        let kind = |now: Reading| match (now.normal(), now.background()) {
            (0, 0) => None,
            (0, _) => Some(Kind::Background), // W3: as a normal one it would open the group again.
            _ => Some(Kind::Normal),
        };
        let more = |word: u64| Some(word + kind(Reading(word))?.unit());
        let before = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        kind(Reading(before.ok()?))
    }

    /// Counts one out, and returns the word as it stands after.
    pub(crate) fn leave(&self, kind: Kind) -> Reading {
        // Release: all that this member did, its destructors included, happens before whoever reads the lower count.
        // Acquire: the last one out acts for all the others.
        Reading(self.0.fetch_sub(kind.unit(), Ordering::AcqRel) - kind.unit())
    }

    /// Asks for the end. Returns the word as it stood before.
    pub(crate) fn cancel(&self, force: bool) -> Reading {
        self.set(if force { CANCELLED | FORCED } else { CANCELLED })
    }

    /// Tells all members to look beyond the word.
    pub(crate) fn call_attention(&self) {
        self.set(ATTENTION);
    }

    /// Refuses newcomers from now on; all else goes on.
    pub(crate) fn shut(&self) {
        self.set(SHUT);
    }

    /// Says that nobody waits any more.
    pub(crate) fn orphan(&self) {
        self.set(ORPHANED);
    }

    /// Says that nobody waits any more, and counts the body out, in one step, if there is nobody else.
    pub(crate) fn orphan_alone(&self) -> bool {
        let alone = |word: u64| {
            (Reading(word).live() == 1).then(|| (word | ORPHANED) - Kind::Normal.unit())
        };
        self.0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, alone)
            .is_ok()
    }

    fn set(&self, flags: u64) -> Reading {
        Reading(self.0.fetch_or(flags, Ordering::AcqRel))
    }
}

#[cfg(all(test, not(any(ringfence_loom, ringfence_shuttle))))]
mod tests {
    use super::{Entry, Kind, MOST, Word};

    #[test]
    fn a_new_word_is_open_with_the_body_inside() {
        let word = Word::new();
        assert!(word.read().is_open());
        assert_eq!(word.read().live(), 1);
    }

    #[test]
    fn who_is_adopted_never_opens_a_group() {
        let word = Word::new();
        assert_eq!(word.try_adopt(), Some(Kind::Normal));
        assert_eq!(word.enter(Kind::Background), Entry::Accepted);
        for _ in 0..2 {
            word.leave(Kind::Normal);
        }
        assert_eq!(word.try_adopt(), Some(Kind::Background));
        for _ in 0..2 {
            assert!(!word.read().is_open());
            word.leave(Kind::Background);
        }
        assert_eq!(word.try_adopt(), None);
    }

    #[test]
    fn entries_and_exits_balance_in_both_counts() {
        let word = Word::new();
        for kind in [Kind::Normal, Kind::Background] {
            assert_eq!(word.enter(kind), Entry::Accepted);
        }
        assert_eq!((word.read().normal(), word.read().background()), (2, 1));
        assert_eq!(word.leave(Kind::Normal).normal(), 1);
        assert_eq!(word.leave(Kind::Normal).normal(), 0);
        assert!(
            !word.read().is_open(),
            "background children do not keep it open"
        );
        assert_eq!(word.leave(Kind::Background).live(), 0);
    }

    #[test]
    fn a_refused_entry_leaves_no_trace() {
        let word = Word::new();
        word.leave(Kind::Normal);
        for _ in 0..2 {
            assert_eq!(word.enter(Kind::Normal), Entry::Refused, "closed is final");
            assert_eq!(word.read().live(), 0);
        }
        assert_eq!(word.try_adopt(), None);
    }

    #[test]
    fn the_first_to_force_is_told_apart() {
        let word = Word::new();
        assert!(!word.cancel(false).is_cancelled());
        assert!(!word.cancel(true).is_forced());
        assert!(word.cancel(true).is_forced());
    }

    #[test]
    fn a_full_count_refuses_instead_of_wrapping() {
        let word = Word::new();
        word.0
            .fetch_add((MOST - 1) << super::NORMAL_SHIFT, super::Ordering::Relaxed);
        assert_eq!(word.enter(Kind::Normal), Entry::Full);
        assert_eq!(word.read().normal(), MOST);
        assert_eq!(word.read().background(), 0, "no carry into the other count");
    }
}
