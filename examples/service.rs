//! A service in one process: supervised parts, periodic work, shared look-ups, and an end in order on Ctrl-C or SIGTERM.
//!
//! ```text
//! cargo run --example service              plays for a second, with a part that fails now and then, and stops itself
//! cargo run --example service -- stay      until Ctrl-C; twice for impatient people
//! ```
//!
//! It proves that whatever fails is restarted and nothing else is disturbed, that a look-up is made once however many want it,
//! and that the end comes in order: those who take in work first, what they need last.

#![expect(clippy::print_stdout, reason = "it is a program")]

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ringfence::supervise::{Child, Periodic, RunEnded, Strategy, Supervisor, WhatNext};
use ringfence::{BoxError, Process, Retry, RunReport, SingleFlight, TaskGroup, token};
use tokio::time::sleep;

const NO_MORE: &str = "server: no more requests";
const WRITTEN: &str = "database: everything is written";

type Names = SingleFlight<u32, String, std::io::Error>;

#[derive(Default)]
struct Figures {
    served: AtomicU32,
    looked_up: AtomicU32,
    restarts: AtomicU32,
    /// What the parts said when they were told to stop.
    farewells: Mutex<Vec<&'static str>>,
}

impl Figures {
    fn farewell(&self, from: &'static str) {
        println!("{from}");
        let mut farewells = self
            .farewells
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        farewells.push(from);
    }
}

async fn look_up(id: u32, figures: Arc<Figures>) -> std::io::Result<String> {
    figures.looked_up.fetch_add(1, Relaxed);
    sleep(Duration::from_millis(20)).await;
    Ok(format!("user {id}"))
}

/// What the others need: first to start, last to stop.
fn database(figures: Arc<Figures>) -> Child {
    Child::permanent("database", move |run| {
        let figures = figures.clone();
        async move {
            sleep(Duration::from_millis(10)).await; // connecting
            println!("database: connected");
            run.ready();
            token().cancelled().await;
            figures.farewell(WRITTEN);
        }
    })
    .ready_within(Duration::from_secs(5))
}

/// Serves until it is told to stop; each third run of it breaks.
fn server(names: Arc<Names>, figures: Arc<Figures>) -> Child {
    Child::permanent("server", move |run| {
        let (names, figures) = (names.clone(), figures.clone());
        async move {
            let breaks_at = if run.number() < 3 { 5 } else { u32::MAX };
            for request in 1.. {
                // Four want the same at the same time; one look-up is made.
                let wanted = || {
                    let figures = figures.clone();
                    names.run(request, move || look_up(request, figures))
                };
                let (a, b, c, d) = tokio::join!(wanted(), wanted(), wanted(), wanted());
                assert!(
                    [b?, c?, d?]
                        .iter()
                        .all(|name| *name == *a.as_ref().expect("it is there"))
                );
                figures.served.fetch_add(4, Relaxed);
                if request == breaks_at {
                    return Err("connection reset".into());
                }
                if token().is_cancelled() {
                    figures.farewell(NO_MORE);
                    break;
                }
            }
            Ok::<_, BoxError>(())
        }
    })
    .backoff(Retry::exponential(Duration::from_millis(20)))
}

/// Tells how it goes, every so often.
fn statistics(figures: Arc<Figures>) -> Child {
    Child::permanent("statistics", move |_| {
        let figures = figures.clone();
        Periodic::rate(Duration::from_millis(250)).run(move |tick| {
            println!(
                "statistics {}: served {}",
                tick.number(),
                figures.served.load(Relaxed)
            );
            async {}
        })
    })
}

#[tokio::main]
async fn main() -> RunReport<()> {
    let stays = std::env::args().nth(1).is_some();
    let (figures, names) = (Arc::new(Figures::default()), Arc::new(Names::new()));
    let report = Process::new()
        .name("service")
        .grace(Duration::from_secs(5))
        .run(async |group: &TaskGroup| {
            let told = figures.clone();
            let supervisor = Supervisor::new()
                .strategy(Strategy::RestForOne)
                .on_end(move |ended: &RunEnded<'_>| {
                    if let WhatNext::Restart(delay) = ended.next {
                        told.restarts.fetch_add(1, Relaxed);
                        println!("{}: {}; again in {delay:.0?}", ended.child, ended.end);
                    }
                })
                .child(database(figures.clone()))
                .child(server(names, figures.clone()))
                .child(statistics(figures.clone()));
            group
                .named("parts")
                .spawn(async { Ok(supervisor.run().await?) });
            if !stays {
                sleep(Duration::from_secs(1)).await;
                group.cancel_with("the demonstration is over");
            }
            token().cancelled().await;
            Ok(())
        })
        .await;
    let [served, looked_up, restarts] =
        [&figures.served, &figures.looked_up, &figures.restarts].map(|figure| figure.load(Relaxed));
    println!("served {served}, looked up {looked_up}, {restarts} restarts");
    assert_eq!(served, 4 * looked_up, "one look-up for four who want it");
    if !stays {
        let farewells = figures.farewells.lock().map_err(|_| "a panic");
        let in_order = farewells.is_ok_and(|told| *told == [NO_MORE, WRITTEN]);
        assert!(in_order, "the last to start is the first to stop");
        assert_eq!(restarts, 2, "what fails is started again");
    }
    report
}
