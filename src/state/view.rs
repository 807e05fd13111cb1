//! What a group looks like to somebody who is not in it.

use std::panic::Location;
use std::time::Instant;

use crate::detail::WaitsFor;
use crate::observe::{CancelReason, TaskId};
use crate::state::Core;
use crate::state::registry::Mark;
use crate::state::word::Reading;
use crate::sync::PlainArc;
use crate::time::Deadline;

/// A child that is in the registry.
pub(crate) struct Seen {
    pub(crate) serial: u64,
    pub(crate) name: Option<PlainArc<str>>,
    pub(crate) location: Option<&'static Location<'static>>,
    pub(crate) since: Option<Instant>,
    pub(crate) mark: Mark,
    pub(crate) detail: Option<Detail>,
}

/// What is noted of a member while details are wanted.
#[derive(Clone, Copy, Default)]
pub(crate) struct Detail {
    pub(crate) polls: u64,
    pub(crate) waits_for: Option<WaitsFor>,
}

/// A group at one moment; its parts are read one after another.
pub(crate) struct View {
    pub(crate) id: u64,
    pub(crate) path: Option<PlainArc<str>>,
    pub(crate) opened_in: Option<TaskId>,
    pub(crate) word: Reading,
    pub(crate) reason: Option<CancelReason>,
    pub(crate) deadline: Deadline,
    /// Whether the body is there; a long-lived group has none.
    pub(crate) has_body: bool,
    pub(crate) body: Option<Detail>,
    /// Alive, the body not counted.
    pub(crate) children: u64,
    pub(crate) tasks: Vec<Seen>,
}

impl Core {
    pub(crate) fn view(&self) -> View {
        let mut tasks = self.registry.seen();
        tasks.sort_unstable_by_key(|seen| seen.serial);
        let body = match tasks.first() {
            Some(first) if first.serial == 0 => tasks.remove(0).detail,
            _ => None,
        };
        let is_over = self.listed.body_is_over();
        let word = self.word.read();
        View {
            id: self.id,
            path: self.path().cloned(),
            opened_in: self.opened_in().map(|(core, serial)| core.task_id(serial)),
            word,
            reason: self.reason(),
            deadline: self.deadline(),
            has_body: self.listed.has_body(),
            body,
            children: word.live().saturating_sub(u64::from(!is_over)),
            tasks,
        }
    }

    /// Returns the serial of the next child: those that came before have lower ones.
    #[cfg(feature = "signal")]
    pub(crate) fn next_serial(&self) -> u64 {
        self.next.load(crate::sync::Ordering::Relaxed)
    }

    /// Asks how far a child that was seen has been asked to end.
    pub(crate) fn asked(&self, seen: &Seen, is_asked_around: bool) -> Mark {
        if self.is_forced_with(self.word.read(), seen.serial, || seen.mark) {
            Mark::Forced
        } else if is_asked_around || self.is_signalled(seen.serial, || seen.mark > Mark::None) {
            Mark::Signalled
        } else {
            Mark::None
        }
    }
}
