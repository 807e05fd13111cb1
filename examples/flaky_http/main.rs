//! `flaky_http` shows what a retry does to a server that cannot keep up, and what a hedge does to a tail.
//!
//! ```text
//! cargo run --release --example flaky_http                        # under half a minute
//! cargo run --release --example flaky_http -- --svg chart.svg     # and the chart as a picture
//! cargo run --release --example flaky_http -- --seed 7 --calls 2000
//! ```
//!
//! A real HTTP server on loopback answers real clients; everything runs in one scope, and nothing is left when it ends.
//! Two stories:
//!
//! 1. **Overload.** The server has room for so many requests at once; what comes on top is refused with a 503, and
//!    refusing costs as much as answering. For a while it has almost no room. Who retries without measure
//!    keeps it down by retrying; who has a budget lets it come back.
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

use clap::Parser;
use ringfence::{TaskGroup, scope};
use tokio::time::{Instant, interval};

use chart::Line;
use client::{Client, Way};
use server::{Server, Story};

/// What a retry does to a server that cannot keep up, and a hedge to a slow tail.
#[derive(Debug, Parser)]
struct Options {
    /// Which requests are slow
    #[arg(long, default_value = "1")]
    seed: u64,
    /// Calls of each way
    #[arg(long, default_value = "400", value_parser = clap::value_parser!(u32).range(100..=100_000))]
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
    for (story, ways) in [
        (
            Story::Overload,
            &[Way::Once, Way::Naive, Way::Polite, Way::Budget][..],
        ),
        (Story::Tail, &[Way::Once, Way::Hedged][..]),
    ] {
        for way in ways {
            eprintln!("{story}: {way} …");
            lines.push(run(&options, story, *way).await?);
        }
    }
    print!("{}", chart::table(&lines));
    if let Some(path) = &options.svg {
        tokio::fs::write(path, chart::svg(&lines)).await?;
        eprintln!("chart written to {}", path.display());
    }
    Ok(())
}

/// One way through one story: a server of its own, and calls at a steady rate, whatever becomes of them.
async fn run(options: &Options, story: Story, way: Way) -> anyhow::Result<Line> {
    let total = Duration::from_secs(1) * options.calls / options.rate;
    let measured = scope(async |group: &TaskGroup<anyhow::Error>| {
        let server = Server::bind(story, options.seed, total).await?;
        let counters = server.counters();
        let client = Arc::new(Client::new(
            group.spawner(),
            server.address(),
            way,
            options.seed,
        ));
        group.named("server").spawn_background(server.run());
        let start = Instant::now();
        let mut ticks = interval(Duration::from_secs(1) / options.rate);
        let mut calls = Vec::new();
        for number in 0..options.calls {
            ticks.tick().await;
            let client = Arc::clone(&client);
            calls.push(group.spawn(async move {
                let begun = Instant::now();
                let answered = client.call(number.into()).await;
                Ok((answered, begun.elapsed()))
            }));
        }
        let mut line = Line::new(story, way);
        for (number, call) in calls.into_iter().enumerate() {
            let (answered, took) = call.await;
            line.add(
                number as u32 * chart::TENTHS / options.calls,
                answered,
                took,
            );
        }
        line.sent = counters.requests();
        line.elapsed = start.elapsed();
        Ok(line)
    })
    .await;
    Ok(measured?)
}
