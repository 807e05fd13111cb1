//! What was made and what became of it: guards, faults, items. Episodes come one after the other, so one ledger does.
//!
//! L1. A [`Guard`] is alive until it is dropped; whoever has one has ended when the count says so. L2. A [`Fault`] that was raised
//! has to be seen, by its number: by a caller, a hook, or an observer. L3. An [`Item`] that a queue has accepted is dropped with a
//! mark (handled, discarded, taken back), once; an item that was handled is not handed out again.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};

pub const MOST_FAULTS: usize = 1 << 16;
pub const MOST_ITEMS: usize = 1 << 20;

pub static LIVE: AtomicI64 = AtomicI64::new(0);
pub static PEAK: AtomicI64 = AtomicI64::new(0);
/// How many children were spawned and have ended, in this episode; and in all.
pub static SPAWNED: AtomicU64 = AtomicU64::new(0);
pub static ENDED: AtomicU64 = AtomicU64::new(0);
pub static TASKS: AtomicU64 = AtomicU64::new(0);
/// Items of queues and of fan-outs, in all.
pub static ITEMS: AtomicU64 = AtomicU64::new(0);
/// Faults by kind, in all.
pub static KINDS: [AtomicU64; KIND_NAMES.len()] = [const { AtomicU64::new(0) }; KIND_NAMES.len()];
pub const KIND_NAMES: [&str; 13] = [
    "errors",
    "panics",
    "panics in destructors",
    "panics in hooks",
    "panics in wakers",
    "cancels",
    "handle cancels",
    "dropped futures",
    "aborted tasks",
    "runtimes shut down",
    "blocked threads",
    "calls given up",
    "restarts",
];

static FAULTS: [AtomicU8; MOST_FAULTS] = [const { AtomicU8::new(0) }; MOST_FAULTS];
static NEXT_FAULT: AtomicU32 = AtomicU32::new(0);
static ITEM_FATES: [AtomicU8; MOST_ITEMS] = [const { AtomicU8::new(0) }; MOST_ITEMS];
static NEXT_ITEM: AtomicU32 = AtomicU32::new(0);
static PLACES: Mutex<Vec<(u32, Backtrace)>> = Mutex::new(Vec::new());
static BROKEN: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// The kinds of faults, by their place in [`KIND_NAMES`].
#[derive(Clone, Copy)]
pub enum Kind {
    Error,
    Panic,
    InDestructor,
    InHook,
    InWaker,
    Cancel,
    HandleCancel,
    Dropped,
    Aborted,
    Shutdown,
    Blocked,
    GivenUp,
    Restart,
}

pub fn count(kind: Kind) {
    KINDS[kind as usize].fetch_add(1, SeqCst);
}

/// Notes that a promise broke.
pub fn broken(what: impl Into<String>) {
    BROKEN
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(what.into());
}

pub fn check(holds: bool, what: impl FnOnce() -> String) {
    if !holds {
        broken(what());
    }
}

/// An error with a number of its own.
#[derive(Debug)]
pub struct Fault(u32);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fault {}", self.0)
    }
}

impl std::error::Error for Fault {}

impl Fault {
    /// Raises a fault: from now on somebody has to see it. `None` when an episode has had enough.
    pub fn raise(kind: Kind) -> Option<Self> {
        let number = NEXT_FAULT.load(SeqCst);
        if number as usize >= MOST_FAULTS - 64 {
            return None;
        }
        let number = NEXT_FAULT.fetch_add(1, SeqCst);
        FAULTS[number as usize].store(1 + kind as u8, SeqCst);
        count(kind);
        // Says where, if `RUST_BACKTRACE` asks for it.
        let place = Backtrace::capture();
        if place.status() == BacktraceStatus::Captured {
            PLACES
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push((number, place));
        }
        Some(Self(number))
    }

    pub fn numbered(number: u32) -> Self {
        Self(number)
    }

    /// Throws it instead, without a word on the console.
    pub fn throw(self) -> ! {
        std::panic::resume_unwind(Box::new(self.to_string()))
    }

    pub fn see(&self) {
        FAULTS[self.0 as usize].store(0, SeqCst);
    }
}

/// Something that has to be dropped. One that was armed throws then, where that does not end the process.
pub struct Guard(bool);

impl Guard {
    pub fn new() -> Self {
        let live = LIVE.fetch_add(1, SeqCst) + 1;
        PEAK.fetch_max(live, SeqCst);
        Self(false)
    }

    pub fn armed(is_armed: bool) -> Self {
        let mut guard = Self::new();
        guard.0 = is_armed;
        guard
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        LIVE.fetch_sub(1, SeqCst);
        if self.0 && !std::thread::panicking() {
            if let Some(fault) = Fault::raise(Kind::InDestructor) {
                fault.throw();
            }
        }
    }
}

/// Counts who is inside one scope, which must be nobody when that has come back.
#[derive(Clone, Default)]
pub struct Census(Arc<AtomicI64>);

pub struct Inside(
    Census,
    #[expect(dead_code, reason = "it is only dropped")] Guard,
);

impl Census {
    pub fn enter(&self, is_armed: bool) -> Inside {
        self.0.fetch_add(1, SeqCst);
        Inside(self.clone(), Guard::armed(is_armed))
    }

    pub fn closed(&self, what: &str) {
        let inside = self.0.load(SeqCst);
        check(inside == 0, || {
            format!("{inside} outlived their scope ({what})")
        });
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, SeqCst);
    }
}

const ACCEPTED: u8 = 0x80;
const HANDLED: u8 = 1;
const FATED: u8 = 2;

/// A piece of work, which a queue may hold.
pub struct Item {
    pub number: u32,
    pub weight: usize,
    mark: AtomicU8,
    _guard: Guard,
}

impl Item {
    /// `None` when an episode has had enough.
    pub fn new(weight: usize) -> Option<Self> {
        if NEXT_ITEM.load(SeqCst) as usize >= MOST_ITEMS - 64 {
            return None;
        }
        ITEMS.fetch_add(1, SeqCst);
        Some(Self {
            number: NEXT_ITEM.fetch_add(1, SeqCst),
            weight,
            mark: AtomicU8::new(0),
            _guard: Guard::new(),
        })
    }

    /// A consumer has it.
    pub fn handed_out(&self) {
        let mark = self.mark.load(SeqCst);
        check(mark == 0, || {
            format!(
                "item {} was handed out again after it was finished",
                self.number
            )
        });
    }

    /// It has been worked on, and is given back as done.
    pub fn handled(&self) {
        self.mark.store(HANDLED, SeqCst);
    }

    /// It was discarded to a hook, or taken back.
    pub fn fated(&self) {
        let before = self.mark.swap(FATED, SeqCst);
        check(before == 0, || {
            format!("item {} has two fates: {before}", self.number)
        });
    }
}

impl Drop for Item {
    fn drop(&mut self) {
        if self.mark.load(SeqCst) != 0 {
            ITEM_FATES[self.number as usize].fetch_add(1, SeqCst);
        }
    }
}

/// Its send came back with success: somebody has to have it, or be told.
pub fn accepted(number: u32) {
    ITEM_FATES[number as usize].fetch_or(ACCEPTED, SeqCst);
}

/// How many things are not as they should be yet; what they are, if there is somebody to tell.
pub fn open_accounts(mut tell: Option<&mut Vec<String>>) -> u64 {
    let mut open = 0;
    let mut note = |many: u64, what: &dyn Fn() -> String| {
        open += many;
        if let (Some(told), true) = (&mut tell, many > 0) {
            told.push(what());
        }
    };
    let live = LIVE.load(SeqCst);
    note(live.unsigned_abs(), &|| {
        format!("leaked: {live} guards are alive")
    });
    let (spawned, ended) = (SPAWNED.load(SeqCst), ENDED.load(SeqCst));
    note(spawned.abs_diff(ended), &|| {
        format!("leaked: {spawned} children were spawned, {ended} ended")
    });
    for (number, fault) in FAULTS
        .iter()
        .enumerate()
        .take(NEXT_FAULT.load(SeqCst) as usize)
    {
        let kind = fault.load(SeqCst);
        note(u64::from(kind > 0), &|| {
            format!(
                "lost: fault {number} ({}){}",
                KIND_NAMES[usize::from(kind) - 1],
                place(number)
            )
        });
    }
    for (number, fate) in ITEM_FATES
        .iter()
        .enumerate()
        .take(NEXT_ITEM.load(SeqCst) as usize)
    {
        let fate = fate.load(SeqCst);
        note(u64::from(fate == ACCEPTED), &|| {
            format!("lost: item {number} was accepted, and has no fate")
        });
        note(u64::from(fate & !ACCEPTED > 1), &|| {
            format!("doubled: item {number}")
        });
    }
    open
}

/// Where a fault was raised: the calls of ours on the way.
fn place(number: usize) -> String {
    let places = PLACES.lock().unwrap_or_else(PoisonError::into_inner);
    let place = places.iter().find(|place| place.0 as usize == number);
    let place = place.map(|place| place.1.to_string()).unwrap_or_default();
    let ours = place.lines().filter(|line| line.contains("src/"));
    ours.filter(|line| !line.contains("/rustc/"))
        .fold(String::new(), |lines, line| lines + "\n" + line)
}

/// What broke in the episode, and a clean ledger for the next.
pub fn close() -> Vec<String> {
    let mut told = std::mem::take(&mut *BROKEN.lock().unwrap_or_else(PoisonError::into_inner));
    open_accounts(Some(&mut told));
    TASKS.fetch_add(SPAWNED.swap(0, SeqCst), SeqCst);
    ENDED.store(0, SeqCst);
    LIVE.store(0, SeqCst);
    PLACES
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clear();
    let faults = NEXT_FAULT.swap(0, SeqCst) as usize;
    FAULTS[..faults]
        .iter()
        .for_each(|fault| fault.store(0, SeqCst));
    let items = NEXT_ITEM.swap(0, SeqCst) as usize;
    ITEM_FATES[..items]
        .iter()
        .for_each(|fate| fate.store(0, SeqCst));
    told
}
