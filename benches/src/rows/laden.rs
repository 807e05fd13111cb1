//! What does a child cost that carries something?

use crate::row::Limits;
use crate::shape::void;
use crate::{Contender, Goal, Row, child};

/// 100,000 children with 64 bytes each, as those of real programs have; wait for all.
pub static ROW: Row = Row {
    name: "laden",
    question: "What does a child cost that carries something?",
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
            run: |n, gate| {
                Box::pin(async move { void::bare(n, &gate, || child::laden([1; 8])).await })
            },
        },
        Contender {
            name: "TaskTracker",
            run: |n, gate| {
                Box::pin(async move { void::tracker(n, &gate, || child::laden([1; 8])).await })
            },
        },
        Contender {
            name: "JoinSet",
            run: |n, gate| {
                Box::pin(async move { void::join_set(n, &gate, || child::laden([1; 8])).await })
            },
        },
        Contender {
            name: "ringfence",
            run: |n, gate| {
                Box::pin(async move { void::ours(n, &gate, || child::laden([1; 8])).await })
            },
        },
    ],
    goals: &[
        Goal {
            who: "ringfence",
            against: "bare spawn + Vec of handles",
            ct: Some(0.8),
            mt: Some(1.1),
            instructions: None,
        },
        Goal {
            who: "ringfence",
            against: "JoinSet",
            ct: Some(0.55),
            mt: Some(0.55),
            instructions: None,
        },
    ],
    limits: Limits {
        locked: Some(20.0),
        allocations: Some(1.0),
        bytes: Some(264.0),
    },
};
