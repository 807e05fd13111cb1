//! Runs a contender's body on a runtime, and times it.

#![expect(
    clippy::disallowed_methods,
    reason = "one of the places a body is measured in is a bare task"
)]

use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};

use crate::{Body, Contender, Gate, Row};

/// A runtime, and where in it the bodies run.
#[derive(Debug)]
pub struct Place {
    /// As it stands in the tables.
    pub name: &'static str,
    /// The runtime; timers on, I/O off.
    pub runtime: Runtime,
    in_task: bool,
}

impl Place {
    /// `current_thread`, the body inside `block_on`.
    #[must_use]
    pub fn current_thread() -> Self {
        Self::new("current_thread", Builder::new_current_thread(), false)
    }

    /// `multi_thread` with two workers, the body inside `block_on`, so on a third thread.
    #[must_use]
    pub fn multi_thread() -> Self {
        Self::new("multi_thread", Builder::new_multi_thread(), false)
    }

    /// `multi_thread` with two workers, the body in a task, so on one of them.
    #[must_use]
    pub fn multi_thread_task() -> Self {
        Self::new("multi_thread in a task", Builder::new_multi_thread(), true)
    }

    /// All three.
    #[must_use]
    pub fn all() -> [Self; 3] {
        [
            Self::current_thread(),
            Self::multi_thread(),
            Self::multi_thread_task(),
        ]
    }

    #[expect(
        clippy::expect_used,
        reason = "without a runtime there is nothing to measure"
    )]
    fn new(name: &'static str, mut builder: Builder, in_task: bool) -> Self {
        let runtime = builder
            .worker_threads(2)
            .enable_time()
            .build()
            .expect("a runtime can be built");
        Self {
            name,
            runtime,
            in_task,
        }
    }

    /// Runs a body to its end.
    #[must_use]
    pub fn run(&self, body: Body) -> u64 {
        if self.in_task {
            crate::shape::ok(self.runtime.block_on(async { tokio::spawn(body).await }))
        } else {
            self.runtime.block_on(body)
        }
    }

    /// One iteration of `n` units: what its measured phase took.
    ///
    /// # Panics
    ///
    /// If the contender's checksum is wrong: it has not done the row's work.
    pub fn once(&self, row: &Row, contender: &Contender, n: usize) -> Taken {
        let body = self.made(row, contender, n);
        let (start, before) = (Instant::now(), cpu_time());
        let checksum = std::hint::black_box(measured_phase(self, body));
        let taken = Taken {
            wall: start.elapsed(),
            cpu: cpu_time().saturating_sub(before),
        };
        assert_eq!(
            checksum,
            (row.checksum)(n),
            "{} / {} did other work",
            row.name,
            contender.name
        );
        taken
    }

    /// A body that is ready to be measured: at its beginning, or at its gate.
    pub fn made(&self, row: &Row, contender: &Contender, n: usize) -> Body {
        crate::child::PARKED.store(0, std::sync::atomic::Ordering::Relaxed);
        if !row.from_gate {
            return (contender.run)(n, Gate::open());
        }
        let gate = Gate::shut();
        let mut body = (contender.run)(n, gate.clone());
        self.runtime.block_on(gate.reached_by(&mut body));
        gate.unlock();
        body
    }
}

/// The phase that is measured, a function of its own so that callgrind can be told to count only here.
#[inline(never)]
#[must_use]
pub fn measured_phase(place: &Place, body: Body) -> u64 {
    place.run(body)
}

/// What an iteration took.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// On the clock on the wall.
    pub wall: Duration,
    /// Of the processors, all threads of the process together: what others do on the machine matters less to it.
    pub cpu: Duration,
}

fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        time.tv_nsec.unsigned_abs() as u32,
    )
}
