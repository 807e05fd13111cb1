//! What does each promise of `ringfence` cost, beside the peers that do not make it?
//!
//! | command, from the root of the repository | what it gives |
//! |---|---|
//! | `cargo run --release --manifest-path benches/Cargo.toml --bin report` | every row in one table: ratios of interleaved rounds, exact counts, goals |
//! | `… --bin report -- void small` | these rows only |
//! | `… --bin page` | `docs/performance.md` and its charts, measured anew; `-- goals`: its last table, from the others |
//! | `… --bin counts -- void` | instructions and locked operations a unit, through callgrind |
//! | `… --bin allocs` | allocations and bytes a child, and what is kept of children that have ended |
//! | `cargo bench --manifest-path benches/Cargo.toml` | the same rows under criterion |
//!
//! `RINGFENCE_BENCH_N=10000` makes everything that takes time smaller.
//!
//! Rules of the lane:
//!
//! 1. A row is one piece of work ([`row::Row`]), written once; its contenders differ only in who looks after the tasks.
//! 2. Contenders are timed in turn, round after round, and compared within the round. Only ratios are quoted.
//! 3. Three places, the same for all contenders: inside `block_on` of `current_thread` and of `multi_thread` with two
//!    workers, and on `multi_thread` in a task. The first wait of a thread outside the workers costs more than a small group.
//! 4. A test runs each contender and counts the children that reached their end.

pub mod child;
pub mod exact;
pub mod gate;
pub mod goals;
pub mod measure;
pub mod row;
pub mod rows;
pub mod scaling;
mod shape;
pub mod timing;

pub use gate::Gate;
pub use row::{Body, Contender, Goal, Row};
