//! What does a scope cost, when each has two children that are scopes themselves?

#![expect(
    clippy::disallowed_methods,
    reason = "bare tasks are what a group is measured against"
)]

use std::convert::Infallible;
use std::pin::Pin;

use ringfence::{TaskGroup, scope};
use tokio::task::JoinSet;

use crate::row::Limits;
use crate::shape::ok;
use crate::{Contender, Gate, Goal, Row, child};

type Node<T> = Pin<Box<dyn Future<Output = T> + Send>>;

fn spawn_both(depth: u32) -> Node<u64> {
    Box::pin(async move {
        if depth == 0 {
            return child::value(1).await;
        }
        let left = tokio::spawn(spawn_both(depth - 1));
        let right = tokio::spawn(spawn_both(depth - 1));
        ok(left.await) + ok(right.await)
    })
}

fn spawn_one(depth: u32) -> Node<u64> {
    Box::pin(async move {
        if depth == 0 {
            return child::value(1).await;
        }
        let left = tokio::spawn(spawn_one(depth - 1));
        let right = spawn_one(depth - 1).await;
        ok(left.await) + right
    })
}

fn join_set(depth: u32) -> Node<u64> {
    Box::pin(async move {
        if depth == 0 {
            return child::value(1).await;
        }
        let mut set = JoinSet::new();
        set.spawn(join_set(depth - 1));
        set.spawn(join_set(depth - 1));
        let mut sum = 0;
        while let Some(ended) = set.join_next().await {
            sum += ok(ended);
        }
        sum
    })
}

fn moro_tree(depth: u32) -> Node<u64> {
    Box::pin(async move {
        if depth == 0 {
            return child::value(1).await;
        }
        moro::async_scope!(|scope| {
            let left = scope.spawn(moro_tree(depth - 1));
            let right = scope.spawn(moro_tree(depth - 1));
            left.await + right.await
        })
        .await
    })
}

fn ours(depth: u32) -> Node<Result<u64, Infallible>> {
    Box::pin(async move {
        if depth == 0 {
            return Ok(child::value(1).await);
        }
        Ok(ok(scope(async |group: &TaskGroup<Infallible>| {
            let left = group.spawn(ours(depth - 1));
            let right = group.spawn(ours(depth - 1));
            Ok(left.await + right.await)
        })
        .await))
    })
}

fn ours_one(depth: u32) -> Node<Result<u64, Infallible>> {
    Box::pin(async move {
        if depth == 0 {
            return Ok(child::value(1).await);
        }
        Ok(ok(scope(async |group: &TaskGroup<Infallible>| {
            let left = group.spawn(ours_one(depth - 1));
            let right = ours_one(depth - 1).await?;
            Ok(left.await + right)
        })
        .await))
    })
}

/// A binary tree of scopes of depth 14, counted by its leaves; each gives 1, each node the sum.
pub static ROW: Row = Row {
    name: "tree",
    question: "What does a scope cost, when each has two children that are scopes themselves?",
    unit: "leaves",
    units: 1 << 14,
    counted: (1 << 12, 1 << 13),
    round: |n| 1 << n.ilog2(),
    from_gate: false,
    checksum: |n| n as u64,
    ended: |n| n,
    bases: ("spawn both + handles", Some("JoinSet a node")),
    contenders: &[
        Contender {
            name: "spawn both + handles",
            run: |n, _: Gate| spawn_both(n.ilog2()),
        },
        Contender {
            name: "JoinSet a node",
            run: |n, _: Gate| join_set(n.ilog2()),
        },
        Contender {
            name: "moro",
            run: |n, _: Gate| moro_tree(n.ilog2()),
        },
        Contender {
            name: "spawn one, run one inline",
            run: |n, _: Gate| spawn_one(n.ilog2()),
        },
        Contender {
            name: "ringfence",
            run: |n, _: Gate| Box::pin(async move { ok(ours(n.ilog2()).await) }),
        },
        Contender {
            name: "ringfence, one inline",
            run: |n, _: Gate| Box::pin(async move { ok(ours_one(n.ilog2()).await) }),
        },
    ],
    goals: &[
        Goal {
            who: "ringfence",
            against: "spawn both + handles",
            ct: Some(1.0),
            mt: Some(1.0),
            instructions: None,
        },
        Goal {
            who: "ringfence",
            against: "JoinSet a node",
            ct: Some(0.6),
            mt: Some(0.6),
            instructions: None,
        },
    ],
    limits: Limits {
        locked: None,
        allocations: None,
        bytes: None,
    },
};
