//! What does a retry cost around an operation that succeeds, that fails at once, and that fails with no delay in between?

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::time::Duration;

use backon::{ConstantBuilder, ExponentialBuilder, Retryable as _};
use ringfence::Retry;
use tokio_retry::strategy::{ExponentialBackoff, FixedInterval};
use tower::retry::Policy;
use tower::{Service as _, ServiceExt as _, service_fn};

use crate::row::Limits;
use crate::shape::ok;
use crate::{Contender, Gate, Goal, Row, child};

const ATTEMPTS: u32 = 4;

#[derive(Debug)]
struct No;

/// Fails so often, and gives back what it was made with.
#[inline]
async fn op(i: u64, call: u32, failures: u32) -> Result<u64, No> {
    if std::hint::black_box(call) <= failures {
        return Err(No);
    }
    Ok(child::value(i).await)
}

/// Counts the calls of one run.
#[inline]
fn counted<F>(mut op: impl FnMut(u32) -> F) -> impl FnMut() -> F {
    let mut call = 0;
    move || {
        call += 1;
        op(call)
    }
}

async fn hand(n: usize, failures: u32) -> u64 {
    let mut sum = 0;
    for i in 0..n as u64 {
        let mut call = 0;
        sum += ok(loop {
            call += 1;
            match op(i, call, failures).await {
                Ok(value) => break Ok(value),
                Err(error) if call == ATTEMPTS => break Err(error),
                Err(_) => {}
            }
        });
    }
    sum
}

async fn ours<const FAILURES: u32>(n: usize, policy: &'static Retry) -> u64 {
    let mut sum = 0;
    for i in 0..n as u64 {
        sum += ok(policy
            .retry(|attempt| op(i, attempt.number, FAILURES))
            .await);
    }
    sum
}

/// With the options of a real client.
async fn ours_with_options(n: usize, policy: &'static Retry) -> u64 {
    let mut sum = 0;
    for i in 0..n as u64 {
        let run = policy.retry(|attempt| op(i, attempt.number, 0));
        let run = run.attempt_timeout(Duration::from_secs(1)).when(|_| true);
        sum += ok(run.await);
    }
    sum
}

const NEVER_WAITS: fn(Duration) -> Ready<()> = |_| ready(());

async fn backon_ok(n: usize) -> u64 {
    let mut sum = 0;
    for i in 0..n as u64 {
        let op = counted(|call| op(i, call, 0));
        sum += ok(op.retry(ExponentialBuilder::default()).await);
    }
    sum
}

async fn backon_fail3(n: usize) -> u64 {
    let mut sum = 0;
    for i in 0..n as u64 {
        let op = counted(|call| op(i, call, 3));
        let run = op.retry(ConstantBuilder::default().with_max_times(3));
        sum += ok(run.sleep(NEVER_WAITS).await);
    }
    sum
}

async fn backon_zero(n: usize) -> u64 {
    let mut sum = 0;
    let zero = ConstantBuilder::default()
        .with_delay(Duration::ZERO)
        .with_max_times(3);
    for i in 0..n as u64 {
        let op = counted(|call| op(i, call, 3));
        sum += ok(op.retry(zero).await);
    }
    sum
}

async fn tokio_retry_ok(n: usize) -> u64 {
    let mut sum = 0;
    for i in 0..n as u64 {
        let delays = ExponentialBackoff::from_millis(10).take(3);
        let op = counted(|call| op(i, call, 0));
        sum += ok(tokio_retry::Retry::start(delays, op).await);
    }
    sum
}

async fn tokio_retry_zero(n: usize) -> u64 {
    let mut sum = 0;
    for i in 0..n as u64 {
        let delays = FixedInterval::from_millis(0).take(3);
        let op = counted(|call| op(i, call, 3));
        sum += ok(tokio_retry::Retry::start(delays, op).await);
    }
    sum
}

#[derive(Clone)]
struct Times(u32);

impl Policy<(u64, u32), u64, No> for Times {
    type Future = Ready<()>;

    fn retry(
        &mut self,
        request: &mut (u64, u32),
        result: &mut Result<u64, No>,
    ) -> Option<Ready<()>> {
        if result.is_ok() || self.0 == 0 {
            return None;
        }
        self.0 -= 1;
        request.1 += 1;
        Some(ready(()))
    }

    fn clone_request(&mut self, request: &(u64, u32)) -> Option<(u64, u32)> {
        Some(*request)
    }
}

async fn tower_service(n: usize, failures: u32) -> u64 {
    let service = service_fn(move |(i, call)| op(i, call, failures));
    let mut service = tower::retry::Retry::new(Times(3), service);
    let mut sum = 0;
    for i in 0..n as u64 {
        let ready: Result<_, Infallible> = service.ready().await.map_err(|_: No| unreachable!());
        sum += ok(ok(ready).call((i, 1)).await);
    }
    sum
}

static DEFAULT: Retry = Retry::DEFAULT;
static WITHOUT_PAUSES: Retry = Retry::DEFAULT.attempts(ATTEMPTS).without_pauses();
static ZERO: Retry = Retry::constant(Duration::ZERO).attempts(ATTEMPTS);

const fn checksum(n: usize) -> u64 {
    (n as u64 * (n as u64 - 1)) / 2
}

macro_rules! contender {
    ($name:literal, |$n:ident| $body:expr) => {
        Contender {
            name: $name,
            run: |$n, _: Gate| Box::pin($body),
        }
    };
}

/// A million operations that succeed at once, each in a retry of its own.
pub static OK: Row = Row {
    name: "retry-ok",
    question: "What does a retry cost around an operation that succeeds at once?",
    unit: "runs",
    units: 1_000_000,
    counted: (10_000, 20_000),
    round: |n| n,
    from_gate: false,
    checksum,
    ended: |n| n,
    bases: ("hand-written loop", None),
    contenders: &[
        contender!("hand-written loop", |n| hand(n, 0)),
        contender!("tower", |n| tower_service(n, 0)),
        contender!("tokio-retry", |n| tokio_retry_ok(n)),
        contender!("backon", |n| backon_ok(n)),
        contender!("ringfence", |n| ours::<0>(n, &DEFAULT)),
        contender!("ringfence, attempt timeout and classifier", |n| {
            ours_with_options(n, &DEFAULT)
        }),
    ],
    goals: &[Goal {
        who: "ringfence",
        against: "hand-written loop",
        ct: Some(1.5),
        mt: Some(1.5),
        instructions: Some(1.5),
    }],
    limits: Limits {
        locked: Some(0.0),
        allocations: Some(0.0),
        bytes: Some(0.0),
    },
};

/// Operations that fail three times and then succeed, with no wait in between.
pub static FAIL3: Row = Row {
    name: "retry-fail3",
    question: "What does a retry cost around an operation that fails three times, with no wait at all?",
    unit: "runs",
    units: 300_000,
    counted: (10_000, 20_000),
    round: |n| n,
    from_gate: false,
    checksum,
    ended: |n| n,
    bases: ("hand-written loop", None),
    contenders: &[
        contender!("hand-written loop", |n| hand(n, 3)),
        contender!("tower", |n| tower_service(n, 3)),
        contender!("backon", |n| backon_fail3(n)),
        contender!("ringfence", |n| ours::<3>(n, &WITHOUT_PAUSES)),
    ],
    goals: &[Goal {
        who: "ringfence",
        against: "hand-written loop",
        ct: Some(1.2),
        mt: Some(1.2),
        instructions: Some(1.2),
    }],
    limits: Limits {
        locked: Some(0.0),
        allocations: Some(0.0),
        bytes: Some(0.0),
    },
};

/// Operations that fail three times and then succeed, with a delay of zero: real time, in the peers a millisecond each.
pub static ZERO_DELAY: Row = Row {
    name: "retry-zero",
    question: "What does a delay of zero cost between four attempts?",
    unit: "runs",
    units: 100,
    counted: (10, 20),
    round: |n| n.min(100),
    from_gate: false,
    checksum,
    ended: |n| n,
    bases: ("backon", None),
    contenders: &[
        contender!("backon", |n| backon_zero(n)),
        contender!("tokio-retry", |n| tokio_retry_zero(n)),
        contender!("ringfence", |n| ours::<3>(n, &ZERO)),
    ],
    goals: &[Goal {
        who: "ringfence",
        against: "backon",
        ct: Some(0.001),
        mt: Some(0.001),
        instructions: None,
    }],
    limits: Limits {
        locked: None,
        allocations: Some(0.0),
        bytes: Some(0.0),
    },
};
