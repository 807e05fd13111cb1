//! `linkcheck` checks every link of an HTML site, concurrently.
//!
//! ```text
//! cargo run --release --example linkcheck                      # the documentation of your toolchain
//! cargo run --release --example linkcheck -- path/to/site      # a folder
//! cargo run --release --example linkcheck -- http://localhost:8000/
//! cargo run --release --example linkcheck -- --faults --seed 7 # the same with a bad server
//! ```
//!
//! Everything that runs at the same time is inside one scope, in `check`:
//!
//! ```text
//! linkcheck                     ends when the body has its report, on Ctrl-C, or at the deadline
//! ├── the pool, in the body
//! │   └── worker (64)           fetch, parse, note, next
//! ├── server (background)       when the site is a folder
//! │   └── connections           a scope of its own: they end with the server
//! ├── client's connections      (background) hyper asks for tasks, and the group provides them
//! └── progress (background)     the bar
//! ```
//!
//! The pages that are found but not yet fetched are in a queue that feeds itself: a page brings new
//! ones, and when nothing is in it and nothing in flight, it ends, and so do the workers.
//!
//! There is no code to shut any of it down. Background children end with the body; Ctrl-C ends the
//! body, and with it the pool; the deadline cancels the scope, and in every case nothing is left
//! running when the scope has ended. What the workers found is in the `Crawl`, which outlives them.

#![expect(clippy::print_stderr, reason = "a program talks to its user")]

mod cli;
mod client;
mod crawl;
mod faults;
mod hash;
mod html;
mod ledger;
mod progress;
mod report;
mod server;
mod site;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::io::Write as _;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use anyhow::{Context as _, bail};
use ringfence::queue::{self, Delivery};
use ringfence::{Cause, Deadline, Scope, TaskGroup, Workers};
use tokio::select;
use tokio::signal::ctrl_c;
use tokio::time::Instant;
use url::Url;

use cli::{Options, Site};
use client::Client;
use crawl::Crawl;
use faults::Dice;
use ledger::Job;
use report::{End, Report};
use server::Server;

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::from_command_line();
    let checked = check(&options).await.and_then(|report| {
        std::io::stdout().write_all(report.to_string().as_bytes())?;
        Ok(report.end)
    });
    match checked {
        Ok(end) => ExitCode::from(end.exit_code()),
        Err(error) => {
            eprintln!("linkcheck: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Checks a site: all of it, or as much as there is time for.
async fn check(options: &Options) -> anyhow::Result<Report> {
    let site = match options.site.clone() {
        Some(site) => site,
        None => Site::Folder(site::default_site().await?),
    };
    let started = Instant::now();
    // Out here, so that what was found survives a scope that is cut short.
    let crawl = OnceLock::new();

    let scope = Scope::new()
        .name("linkcheck")
        .deadline(options.deadline.map_or(Deadline::NEVER, Deadline::after));
    let ended = scope
        .run(async |group| {
            let start = serve(group, site, options).await?;
            let client = Client::new(group.spawner(), options.in_flight.into(), options.timeout);
            let page_cap = options.pages.map_or(usize::MAX, NonZeroUsize::get);
            let (new, first) = Crawl::new(start, page_cap, client);
            let crawl = crawl.get_or_init(|| Arc::new(new));
            select! {
                // First of all, so that Ctrl-C is taken care of before there is work to stop.
                biased;
                signal = ctrl_c() => {
                    signal.context("cannot wait for Ctrl-C")?;
                    // The pool ends here and now, with everybody else. Not by a cancel of the scope: then
                    // its result would be an error, and this is none.
                    Ok(End::Interrupted)
                }
                worked = work(group, crawl, first, options.in_flight) => worked.map(|()| End::Finished),
            }
        })
        .await;
    let end = match ended {
        Ok(end) => end,
        Err(error) if matches!(error.cause(), Cause::DeadlineExceeded) => End::DeadlineExceeded,
        // One error is enough to tell the user; it is the one that stopped the others.
        Err(error) => return Err(error.into_first().unwrap_or_else(Into::into)),
    };

    let Some(crawl) = crawl.get() else {
        bail!("the deadline passed before anything was done")
    };
    let ledger = crawl.ledger();
    if let Some(failure) = ledger.false_start() {
        bail!("cannot start at {failure}");
    }
    let (requests, retries) = crawl.client.requests();
    Ok(Report {
        end,
        counts: ledger.counts(),
        findings: ledger.findings(),
        requests,
        retries,
        elapsed: started.elapsed(),
        show: options.show,
    })
}

/// Sees to it that there is a URL to start at.
async fn serve(
    group: &TaskGroup<anyhow::Error>,
    site: Site,
    options: &Options,
) -> anyhow::Result<Url> {
    let folder = match site {
        Site::Url(url) => return Ok(url),
        Site::Folder(folder) => folder,
    };
    eprintln!("linkcheck: {}", folder.display());
    let dice = options.faults.then(|| Dice::new(options.seed));
    let server = Server::bind(folder, dice).await?;
    let start = format!("http://{}/index.html", server.address()).parse()?;
    group.named("server").spawn_background(server.run());
    Ok(start)
}

/// Does the work, with as many workers as there may be requests in flight: that is all it takes to
/// limit them.
async fn work(
    group: &TaskGroup<anyhow::Error>,
    crawl: &Arc<Crawl>,
    first: Job,
    in_flight: u16,
) -> anyhow::Result<()> {
    let shared = Arc::clone(crawl);
    group
        .named("progress")
        .spawn_background(async move { progress::draw(&shared).await });

    let (seed, frontier) = queue::unbounded();
    seed.try_send(first)?;
    // From here on only pages bring pages. One in flight is a delivery: it keeps the queue from
    // ending until it has sent what it found, also when its worker is cancelled in the middle.
    drop(seed);

    let crawl = Arc::clone(crawl);
    let visit = move |page: Delivery<Job>| {
        let crawl = Arc::clone(&crawl);
        async move {
            for found in crawl.visit(&page).await {
                if page.send(found).is_err() {
                    // Closed: the run drains, and takes on nothing new. The page itself is done.
                    break;
                }
            }
            Ok::<_, Infallible>(page)
        }
    };
    Workers::new(in_flight.into()).run(frontier, visit).await?;
    Ok(())
}
