//! `flaky_http` shows what a retry does to a server that cannot keep up, and what a hedge does to a tail.
//!
//! ```text
//! cargo run --release --example flaky_http                        # about a minute
//! cargo run --release --example flaky_http -- --svg chart.svg     # and the chart as a picture
//! cargo run --release --example flaky_http -- --seed 7 --calls 2000
//! ```
//!
//! A real HTTP server on loopback answers real clients; everything runs in one scope, and nothing is left when it ends.
//! Calls begin at a steady rate, whatever becomes of them: users do not wait for one another. Two stories:
//!
//! 1. **Overload.** The server can answer twice what is asked for. For a while everything takes it ten times as long, and a line
//!    forms. Callers hang up after 200 ms; the server does the work all the same. Once it is well again, the line should be gone
//!    within a second. But who retries without measure asks for more than the server can do, so the line stays, and every
//!    answer comes too late: an outage that feeds itself. Backoff alone does not end it. A budget does: there are no more
//!    retries than a tenth of what succeeds.
//! 2. **A slow tail.** One request in twenty takes ten times as long. A second copy of what takes longer than
//!    most cuts the tail, for a few requests more.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program talks to its user"
)]

mod chart;
mod client;
mod server;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{bail, ensure};
use clap::Parser;
use ringfence::{TaskGroup, scope};
use tokio::time::{Instant, interval};

use chart::Line;
use client::{Client, Way};
use server::{STEPS, Server, Story};

/// What a retry does to a server that cannot keep up, and a hedge to a slow tail.
#[derive(Debug, Parser)]
struct Options {
    /// Which requests are slow
    #[arg(long, default_value = "1")]
    seed: u64,
    /// Calls of each way
    #[arg(long, default_value = "800", value_parser = clap::value_parser!(u32).range(100..=100_000))]
    calls: u32,
    /// Calls a second
    #[arg(long, default_value = "100", value_parser = clap::value_parser!(u32).range(10..=5_000))]
    rate: u32,
    /// Write the chart here, too
    #[arg(long)]
    svg: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let mut lines = Vec::new();
    for way in Way::ALL {
        eprintln!("{}: {way} …", way.story());
        lines.push(run(&options, way).await?);
    }
    print!("{}", chart::table(&lines));
    if let Some(path) = &options.svg {
        tokio::fs::write(path, chart::svg(&lines)).await?;
        eprintln!("chart written to {}", path.display());
    }
    // At other rates there is no overload, or no end of it.
    if options.rate == 100 {
        check(&lines)?;
    }
    Ok(())
}

/// Fails if it did not come out as told above. The bounds hold for a hundred calls, and on a busy machine.
fn check(lines: &[Line]) -> anyhow::Result<()> {
    let [_, naive, _, budget, tail, hedged] = lines else {
        bail!("there are six ways");
    };
    let (naive, budget) = (naive.amplification(), budget.amplification());
    ensure!(budget < 1.5, "with a budget: {budget:.2} requests a call");
    ensure!(naive > 2.0 * budget, "without one: only {naive:.2}");
    let (tail, hedged) = (tail.mean(), hedged.mean());
    ensure!(
        hedged < tail,
        "hedged, a call takes {hedged:.0} ms, and {tail:.0} otherwise"
    );
    Ok(())
}

/// One way through its story: a server of its own, and calls at a steady rate.
async fn run(options: &Options, way: Way) -> anyhow::Result<Line> {
    let story = way.story();
    let total = Duration::from_secs(1) * options.calls / options.rate;
    // How long calls usually take has to be known before the story begins.
    let before = match story {
        Story::Tail => options.calls / 8,
        Story::Overload => 0,
    };
    let measured = scope(async |group: &TaskGroup<anyhow::Error>| {
        let server = Server::bind(story, options.seed, total).await?;
        let counters = server.counters();
        let seed = options.seed;
        let client = Arc::new(Client::new(group.spawner(), server.address(), way, seed));
        group.named("server").spawn_background(server.run());
        let mut ticks = interval(Duration::from_secs(1) / options.rate);
        let mut calls = Vec::new();
        for number in 0..before + options.calls {
            ticks.tick().await;
            if number == before {
                counters.begin();
            }
            let client = Arc::clone(&client);
            calls.push(group.spawn(async move {
                let begun = Instant::now();
                let is_good = client.call(number.into()).await;
                Ok((is_good, begun.elapsed()))
            }));
        }
        let mut line = Line::new(way, total);
        for (number, call) in (0..).zip(calls) {
            let (is_good, took) = call.await;
            if let Some(number) = u32::checked_sub(number, before) {
                line.add(number * STEPS / options.calls, is_good, took);
            }
        }
        line.requests = counters.requests();
        line.sent = counters.all();
        Ok(line)
    })
    .await;
    Ok(measured?)
}
