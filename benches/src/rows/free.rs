//! Who should free a task: the worker that ran it, or the joiner that made it?

#![expect(
    clippy::disallowed_methods,
    reason = "bare tasks are what a group is measured against"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::AcqRel};

use tokio::sync::Notify;

use crate::row::Limits;
use crate::shape::void;
use crate::{Contender, Gate, Row, child};

/// Counts the children that are left; the last one wakes the joiner.
struct Counted(Arc<(AtomicUsize, Notify)>);

impl Drop for Counted {
    fn drop(&mut self) {
        if self.0.0.fetch_sub(1, AcqRel) == 1 {
            self.0.1.notify_one();
        }
    }
}

/// One counter for all; with or without the handles kept until it says that all are done.
async fn counter(n: usize, gate: &Gate, keep: bool) -> u64 {
    let left = Arc::new((AtomicUsize::new(n), Notify::new()));
    let mut handles = Vec::with_capacity(if keep { n } else { 0 });
    for _ in 0..n {
        let counted = Counted(Arc::clone(&left));
        let handle = tokio::spawn(async move {
            let _counted = counted;
            child::noop().await;
        });
        if keep {
            handles.push(handle);
        }
    }
    gate.pass().await;
    left.1.notified().await;
    drop(handles);
    n as u64
}

/// Children of a group, in the row of small ones.
const GROUP: usize = 10;

/// 100,000 children that do nothing; what differs is who drops the last reference to each task.
pub static ROW: Row = Row {
    name: "free",
    question: "Who should free a task: the worker that ran it, or the joiner that made it?",
    unit: "children",
    units: 100_000,
    counted: (10_000, 20_000),
    round: |n| n,
    from_gate: false,
    checksum: |n| n as u64,
    ended: |n| n,
    bases: ("bare spawn + Vec of handles", Some("JoinSet")),
    contenders: &[
        Contender {
            name: "bare spawn + Vec of handles",
            run: |n, gate| Box::pin(async move { void::bare(n, &gate, child::noop).await }),
        },
        Contender {
            name: "JoinSet",
            run: |n, gate| Box::pin(async move { void::join_set(n, &gate, child::noop).await }),
        },
        Contender {
            name: "counter, the worker frees",
            run: |n, gate| Box::pin(async move { counter(n, &gate, false).await }),
        },
        Contender {
            name: "counter, the joiner frees",
            run: |n, gate| Box::pin(async move { counter(n, &gate, true).await }),
        },
        Contender {
            name: "ringfence, handles dropped",
            run: |n, gate| Box::pin(async move { void::ours(n, &gate, child::noop).await }),
        },
        Contender {
            name: "ringfence, handles kept and awaited",
            run: |n, gate| Box::pin(async move { void::ours_kept(n, &gate, child::noop).await }),
        },
    ],
    goals: &[],
    limits: Limits {
        locked: None,
        allocations: None,
        bytes: None,
    },
};

/// The same in groups of ten, one group after another: what differs is who drops the last reference to each task.
pub static SMALL: Row = Row {
    name: "free-small",
    question: "And in groups of ten?",
    unit: "children",
    units: 100_000,
    counted: (10_000, 20_000),
    round: |n| n / GROUP * GROUP,
    from_gate: false,
    checksum: |n| n as u64,
    ended: |n| n,
    bases: ("bare spawn + Vec of handles", Some("JoinSet")),
    contenders: &[
        Contender {
            name: "bare spawn + Vec of handles",
            run: |n, gate| {
                Box::pin(async move {
                    let mut ended = 0;
                    for _ in 0..n / GROUP {
                        ended += void::bare(GROUP, &gate, child::noop).await;
                    }
                    ended
                })
            },
        },
        Contender {
            name: "JoinSet",
            run: |n, gate| {
                Box::pin(async move {
                    let mut ended = 0;
                    for _ in 0..n / GROUP {
                        ended += void::join_set(GROUP, &gate, child::noop).await;
                    }
                    ended
                })
            },
        },
        Contender {
            name: "counter, the worker frees",
            run: |n, gate| {
                Box::pin(async move {
                    let mut ended = 0;
                    for _ in 0..n / GROUP {
                        ended += counter(GROUP, &gate, false).await;
                    }
                    ended
                })
            },
        },
        Contender {
            name: "counter, the joiner frees",
            run: |n, gate| {
                Box::pin(async move {
                    let mut ended = 0;
                    for _ in 0..n / GROUP {
                        ended += counter(GROUP, &gate, true).await;
                    }
                    ended
                })
            },
        },
        Contender {
            name: "ringfence, handles dropped",
            run: |n, gate| {
                Box::pin(async move {
                    let mut ended = 0;
                    for _ in 0..n / GROUP {
                        ended += void::ours(GROUP, &gate, child::noop).await;
                    }
                    ended
                })
            },
        },
        Contender {
            name: "ringfence, handles kept and awaited",
            run: |n, gate| {
                Box::pin(async move {
                    let mut ended = 0;
                    for _ in 0..n / GROUP {
                        ended += void::ours_kept(GROUP, &gate, child::noop).await;
                    }
                    ended
                })
            },
        },
    ],
    goals: &[],
    limits: Limits {
        locked: None,
        allocations: None,
        bytes: None,
    },
};
