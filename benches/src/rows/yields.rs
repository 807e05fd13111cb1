//! What does a poll cost, when each child has four?

use crate::row::Limits;
use crate::shape::void;
use crate::{Contender, Goal, Row, child};

/// 100,000 children that yield three times each; wait for all.
pub static ROW: Row = Row {
    name: "yield",
    question: "What does a poll cost, when each child has four?",
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
            run: |n, gate| Box::pin(async move { void::bare(n, &gate, child::yields).await }),
        },
        Contender {
            name: "TaskTracker",
            run: |n, gate| Box::pin(async move { void::tracker(n, &gate, child::yields).await }),
        },
        Contender {
            name: "JoinSet",
            run: |n, gate| Box::pin(async move { void::join_set(n, &gate, child::yields).await }),
        },
        Contender {
            name: "ringfence",
            run: |n, gate| Box::pin(async move { void::ours(n, &gate, child::yields).await }),
        },
    ],
    goals: &[
        Goal {
            who: "ringfence",
            against: "bare spawn + Vec of handles",
            ct: Some(1.0),
            mt: Some(1.1),
            instructions: None,
        },
        Goal {
            who: "ringfence",
            against: "JoinSet",
            ct: None,
            mt: Some(0.5),
            instructions: None,
        },
    ],
    limits: Limits {
        locked: None,
        allocations: None,
        bytes: None,
    },
};
