//! The service and its visitors, in one process: they talk until it is told to stop, and then it is looked at what was kept.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{ExitCode, Termination as _};
use std::time::Duration;

use futures::future::join_all;
use ringfence::BoxError;
use ringfence::queue::{self, Receiver, Sender};
use rusqlite::Connection;
use tokio::process::Command;
use tokio::time::sleep;

use crate::LOCAL;
use crate::client::{Client, Heard};
use crate::get::get;
use crate::service::{Service, Settings};

const ROOMS: usize = 4;

/// What a visitor has seen.
struct Seen {
    accepted: Vec<i64>,
    end: Heard,
}

pub(crate) async fn run(visitors: usize, stays: bool) -> Result<ExitCode, BoxError> {
    let folder = tempfile::tempdir()?;
    let database = folder.path().join("chat.db");
    let service = Service::open(Settings {
        listen: LOCAL,
        admin: LOCAL,
        database: database.clone(),
        grace: Duration::from_secs(10),
    })
    .await?;
    let (public, admin) = service.addresses()?;

    // The visitors are no part of the service, and in no group of it: they are futures of this task.
    let (begins, all_talk) = queue::bounded::<Infallible>(1);
    let visits = join_all((0..visitors).map(|number| visit(public, number, begins.clone())));
    drop(begins);
    let ((report, figures), seen, looked) =
        tokio::join!(service.run(), visits, look(admin, stays, all_talk));
    looked?;
    let seen = seen.into_iter().collect::<Result<Vec<_>, _>>()?;

    let accepted: BTreeSet<i64> = seen
        .iter()
        .flat_map(|seen| &seen.accepted)
        .copied()
        .collect();
    let told = |wanted| {
        seen.iter()
            .filter(|seen| matches!(seen.end, Heard::Farewell(code) if code == wanted))
            .count()
    };
    println!(
        "\n{visitors} visitors heard that {} messages were accepted",
        accepted.len()
    );
    println!(
        "{} of them were told that the service stops, {} that their message has found a bug",
        told(1001),
        told(1011)
    );
    println!("{figures}");

    let stored = stored(&database)?;
    assert!(
        accepted.is_subset(&stored),
        "what was acknowledged is in the database"
    );
    assert_eq!(
        (figures.lost, figures.tasks.live()),
        (0, 0),
        "nothing is lost, and nothing is alive"
    );
    println!(
        "each of them is in the database, with {} messages in all",
        stored.len()
    );
    Ok(report.report())
}

/// Talks until the service takes leave. One of them finds a bug, one leaves, and one vanishes.
///
/// Who is well under way drops `begins`: the last one lets that queue end.
async fn visit(
    address: SocketAddr,
    number: usize,
    begins: Sender<Infallible>,
) -> Result<Seen, BoxError> {
    let mut begins = Some(begins);
    let (room, who) = (
        format!("room-{}", number % ROOMS),
        format!("visitor-{number}"),
    );
    let mut client = Client::join(address, &room, &who).await?;
    let mut accepted = Vec::new();
    for count in 1.. {
        let text = match (number, count) {
            (7, 10) => "/panic".to_owned(),
            (8, 10) => {
                client.leave().await;
                break;
            }
            (9, 10) => {
                client.vanish("what becomes of this?").await;
                break;
            }
            _ => format!("message {count}"),
        };
        match client.say(&text).await {
            Ok(number) => accepted.push(number),
            Err(end) => return Ok(Seen { accepted, end }),
        }
        if count == 20 {
            drop(begins.take());
        }
        sleep(Duration::from_millis(10 + number as u64 % 7)).await;
    }
    Ok(Seen {
        accepted,
        end: Heard::Lost,
    })
}

/// Looks inside from outside when everybody talks, and has it stop.
async fn look(
    admin: SocketAddr,
    stays: bool,
    mut all_talk: Receiver<Infallible>,
) -> Result<(), BoxError> {
    if stays {
        println!("the tree: cargo run --example pstree -- {admin}        the end: Ctrl-C");
        return Ok(());
    }
    let _end = all_talk.recv().await;
    let (tree, metrics) = (get(admin, "/tree").await, get(admin, "/metrics").await);
    // As from outside: there is no other way to tell a process.
    let id = std::process::id().to_string();
    Command::new("kill").args(["-TERM", &id]).status().await?;

    let (tree, metrics) = (tree?, metrics?);
    for line in tree.lines().take(8) {
        println!("  {line}");
    }
    let lines = tree.lines().count();
    println!("  … {lines} lines in all: `--stay`, and pstree shows them");
    for line in metrics.lines().filter(|line| line.starts_with("chat_")) {
        println!("  {line}");
    }
    Ok(())
}

fn stored(database: &Path) -> rusqlite::Result<BTreeSet<i64>> {
    let database = Connection::open(database)?;
    let mut numbers = database.prepare("SELECT number FROM messages")?;
    numbers.query_map((), |row| row.get(0))?.collect()
}
