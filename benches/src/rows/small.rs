//! What does a small group cost, its setting-up included?

use crate::row::Limits;
use crate::shape::void;
use crate::{Contender, Goal, Row, child};

/// Children of a group.
const GROUP: usize = 10;

/// 100,000 children that do nothing, in groups of ten, one group after another.
pub static ROW: Row = Row {
    name: "small",
    question: "What does a small group cost, its setting-up included?",
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
            name: "TaskTracker",
            run: |n, gate| {
                Box::pin(async move {
                    let mut ended = 0;
                    for _ in 0..n / GROUP {
                        ended += void::tracker(GROUP, &gate, child::noop).await;
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
            name: "ringfence",
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
    ],
    goals: &[Goal {
        who: "ringfence",
        against: "bare spawn + Vec of handles",
        ct: Some(0.95),
        mt: Some(0.95),
        instructions: None,
    }],
    // One for each task cell, and two for the group.
    limits: Limits {
        locked: None,
        allocations: Some(1.2),
        bytes: None,
    },
};
