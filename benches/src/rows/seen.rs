//! What does it cost to look inside?

use std::convert::Infallible;
use std::sync::Arc;

use ringfence::inspect::{Counters, collect_details};
use ringfence::{Deadline, Scope, TaskGroup};

use crate::row::Limits;
use crate::shape::ok;
use crate::{Body, Contender, Row, child};

/// A scope of that kind, with children that yield three times each, named or not.
async fn group(n: usize, scope: Scope, is_named: bool) -> u64 {
    ok(scope
        .run(async |group: &TaskGroup<Infallible>| {
            for _ in 0..n {
                drop(if is_named {
                    group.named("child").spawn(child::yields())
                } else {
                    group.spawn(child::yields())
                });
            }
            Ok(n as u64)
        })
        .await)
}

/// As it is, while details are collected.
async fn detailed(n: usize) -> u64 {
    /// Also if the run is cut: other rows are measured after.
    struct Off;
    impl Drop for Off {
        fn drop(&mut self) {
            collect_details(false);
        }
    }
    collect_details(true);
    let _off = Off;
    group(n, Scope::new(), false).await
}

fn boxed(body: impl Future<Output = u64> + Send + 'static) -> Body {
    Box::pin(body)
}

/// Children that yield three times each, seen in several ways.
pub static ROW: Row = Row {
    name: "seen",
    question: "What does it cost to look inside, for children that have four polls?",
    unit: "children",
    units: 100_000,
    counted: (10_000, 20_000),
    round: |n| n,
    from_gate: false,
    checksum: |n| n as u64,
    ended: |n| n,
    bases: ("ringfence", None),
    contenders: &[
        Contender {
            name: "ringfence",
            run: |n, _| boxed(group(n, Scope::new(), false)),
        },
        Contender {
            name: "ringfence, each child named",
            run: |n, _| boxed(group(n, Scope::new(), true)),
        },
        Contender {
            name: "ringfence, a deadline over all",
            run: |n, _| {
                let scope =
                    Scope::new().deadline(Deadline::after(std::time::Duration::from_secs(3600)));
                boxed(group(n, scope, false))
            },
        },
        Contender {
            name: "ringfence, counters",
            run: |n, _| {
                let scope = Scope::new().observer(Arc::new(Counters::new()));
                boxed(group(n, scope, false))
            },
        },
        Contender {
            name: "ringfence, details collected",
            run: |n, _| boxed(detailed(n)),
        },
    ],
    goals: &[],
    limits: Limits {
        locked: None,
        allocations: None,
        bytes: None,
    },
};
