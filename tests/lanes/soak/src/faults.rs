//! What goes wrong, and where: each draws from a seed of its own, so that one seed is one program whatever the threads do.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tokio::task::{unconstrained, yield_now};
use tokio::time::sleep;

use crate::ledger::{Fault, Kind, count};

/// One fault in so many strikes; 0 is none.
pub static RARITY: AtomicU64 = AtomicU64::new(0);

/// Numbers from a seed (SplitMix64).
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub fn within(&mut self, range: std::ops::Range<u64>) -> u64 {
        range.start + self.below(range.end - range.start)
    }

    pub fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }

    /// One for somebody else, who may draw at any time.
    pub fn split(&mut self) -> Self {
        Self::new(self.next())
    }

    pub fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.within(range))
    }

    /// Whether a fault is due.
    pub fn is_due(&mut self) -> bool {
        match RARITY.load(SeqCst) {
            0 => false,
            rarity => self.one_in(rarity),
        }
    }
}

/// Whether to say what is drawn.
pub static IS_TRACED: AtomicBool = AtomicBool::new(false);

pub fn trace(what: impl FnOnce() -> String) {
    if IS_TRACED.load(SeqCst) {
        println!("    {}", what());
    }
}

/// Goes wrong at once, in one way or the other, if that is due.
pub fn snap(rng: &mut Rng) -> Result<(), Fault> {
    if rng.is_due() {
        let is_panic = rng.one_in(3);
        let kind = if is_panic { Kind::Panic } else { Kind::Error };
        match Fault::raise(kind) {
            Some(fault) if is_panic => fault.throw(),
            Some(fault) => return Err(fault),
            None => {}
        }
    }
    Ok(())
}

/// A panic in a hook, if that is due.
pub fn snap_in_hook(draw: &AtomicU64) {
    let mut rng = Rng::new(draw.fetch_add(0x9e37_79b9, SeqCst));
    if rng.is_due() {
        if let Some(fault) = Fault::raise(Kind::InHook) {
            fault.throw();
        }
    }
}

/// Blocks this thread for a moment.
pub fn block(rng: &mut Rng) {
    count(Kind::Blocked);
    std::thread::sleep(rng.millis(1..3));
}

/// A turn of work: it may be over at once, wait, or block, and it may go wrong before and after.
pub async fn work(rng: &mut Rng) -> Result<(), Fault> {
    snap(rng)?;
    match rng.below(32) {
        0..8 => yield_now().await,
        8..11 => sleep(rng.millis(0..3)).await,
        11 if rng.one_in(40) => block(rng),
        12 => {
            for _ in 0..rng.below(20) {
                yield_now().await;
            }
        }
        _ => {}
    }
    snap(rng)
}

/// A future and what is dropped with it, once it has returned: a destructor that throws inside an `async` block would cost what
/// that block returns, which is nobody's fault but ours.
pub struct Held<F, G>(Pin<Box<F>>, G);

impl<F: Future, G: Unpin> Future for Held<F, G> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.0.as_mut().poll(cx)
    }
}

pub fn held<F: Future, G: Unpin>(guard: G, future: F) -> Held<F, G> {
    Held(Box::pin(future), guard)
}

struct Throws;

impl Wake for Throws {
    fn wake(self: Arc<Self>) {
        if let Some(fault) = Fault::raise(Kind::InWaker) {
            fault.throw();
        }
    }
}

/// Polls once with a waker that throws, and then as usual: whoever rings the first one must not mind. Only for what waits for
/// us: a runtime's own timers need not bear it.
pub async fn thrown<F: Future>(future: F, rng: &mut Rng) -> F::Output {
    let mut future = pin!(unconstrained(future)); // or the runtime would ring it, when our turn has been long enough
    if rng.is_due() {
        let waker = Waker::from(Arc::new(Throws));
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        for _ in 0..rng.below(4) {
            yield_now().await;
        }
    }
    future.await
}

/// Drops the future after some turns, if that is due.
pub async fn cut<F: Future>(future: F, rng: &mut Rng) -> Option<F::Output> {
    let mut future: Pin<Box<F>> = Box::pin(future);
    if !rng.one_in(8) {
        return Some(future.await);
    }
    if rng.one_in(2) {
        let bound = rng.millis(0..4);
        let ended = ringfence::timeout(bound, future).await;
        if ended.is_err() {
            count(Kind::Dropped);
        }
        return ended.ok();
    }
    let turns = rng.below(6);
    let patience = async {
        for _ in 0..turns {
            yield_now().await;
        }
    };
    tokio::select! {
        biased;
        output = &mut future => Some(output),
        () = patience => {
            count(Kind::Dropped);
            None
        }
    }
}
