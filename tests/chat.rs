//! The chat example as a process among others: a thousand clients, handlers that panic or hang, a disk that refuses, a signal.
//!
//! Real processes and sockets run in real time, so this waits for them with a clock; the one time that is asserted is the grace.

#![cfg(unix)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "figures, and what a process that failed has said"
)]

#[path = "../examples/chat/client.rs"]
mod client;

use std::collections::HashMap;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use client::{Client, Heard};
use ringfence::{BoxError, Limiter, TaskGroup, scope};
use rusqlite::Connection;
use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process, setrlimit};
use tempfile::TempDir;
use tokio::time::sleep;

/// How long anything may take that has no time of its own.
const PATIENCE: Duration = Duration::from_secs(60);

/// The folder of the examples, which are up to date there.
fn programs() -> &'static Path {
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let test = std::env::current_exe().expect("the path of this test");
        let profile = test.ancestors().nth(2).expect("<target>/<profile>/deps");
        // A plain `cargo test` has built them; `cargo test --test chat` has not.
        let mut cargo = Command::new(env!("CARGO"));
        cargo
            .args([
                "build",
                "--quiet",
                "--example",
                "chat",
                "--example",
                "pstree",
            ])
            .arg("--target-dir")
            .arg(profile.parent().expect("<target>"))
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        assert!(cargo.status().expect("cargo runs").success());
        profile.join("examples")
    })
}

/// A running chat, with its database and what it says in a folder. It does not outlive its test.
struct Service {
    process: Child,
    folder: TempDir,
    public: SocketAddr,
    admin: SocketAddr,
}

impl Service {
    async fn start(grace: Duration) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name| File::create(folder.path().join(name)).expect("a file");
        let process = Command::new(programs().join("chat"))
            .args([
                "--listen",
                "127.0.0.1:0",
                "--grace",
                &grace.as_secs().to_string(),
                "--database",
            ])
            .arg(folder.path().join("chat.db"))
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null())
            .stdout(file("stdout"))
            .stderr(file("stderr"))
            .spawn()
            .expect("it starts");
        let mut service = Self {
            process,
            folder,
            public: SocketAddr::from(([127, 0, 0, 1], 0)),
            admin: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        until("it has told its addresses", || {
            service.said("stdout").contains('\n')
        })
        .await;
        let line = service.said("stdout");
        let mut addresses = line.split("http://").skip(1).map(|rest| {
            let end = rest.find([',', '\n']).expect("the end of an address");
            rest[..end].parse().expect("an address")
        });
        service.public = addresses.next().expect("that of the chat");
        service.admin = addresses.next().expect("that of the tree");
        service
    }

    /// What it has said so far.
    fn said(&self, file: &str) -> String {
        fs::read_to_string(self.folder.path().join(file)).expect("a file of ours")
    }

    fn tell_to_stop(&self) {
        let id = Pid::from_child(&self.process);
        kill_process(id, Signal::TERM).expect("it is there");
    }

    async fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        until("it has ended", || {
            status = self.process.try_wait().expect("a child of ours");
            status.is_some()
        })
        .await;
        status.expect("it has ended")
    }

    fn database(&self) -> Connection {
        Connection::open(self.folder.path().join("chat.db")).expect("a database")
    }

    /// Checks that all that was acknowledged is in the database, as it was said, and that the process says so, too.
    fn check(&self, acknowledged: &[(i64, String)]) {
        let database = self.database();
        let mut rows = database
            .prepare("SELECT number, text FROM messages")
            .expect("a table");
        let rows = rows.query_map((), |row| Ok((row.get(0)?, row.get(1)?)));
        let stored: HashMap<i64, String> =
            rows.expect("rows").map(|row| row.expect("a row")).collect();
        for (number, text) in acknowledged {
            assert_eq!(stored.get(number), Some(text), "message {number}");
        }
        let (said, count) = (self.said("stdout"), stored.len());
        let last = said.lines().last().expect("a line");
        assert!(
            last.starts_with(&format!(
                "{count} messages accepted, {count} stored, 0 lost; "
            )),
            "{last}"
        );
        assert!(last.ends_with(" 0 alive"), "{last}");
        assert!(
            TcpStream::connect(self.public).is_err() && TcpStream::connect(self.admin).is_err()
        );
    }

    /// What the second program tells of it.
    fn tree(&self, arguments: &[&str]) -> String {
        let mut pstree = Command::new(programs().join("pstree"));
        let output = pstree
            .arg(self.admin.to_string())
            .args(arguments)
            .output()
            .expect("it runs");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("UTF-8")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("it said:\n{}{}", self.said("stdout"), self.said("stderr"));
        }
        let _gone_already = self.process.kill();
        let _gone_already = self.process.wait();
    }
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited too long: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// What a client does when it has talked for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Fate {
    Stays,
    Leaves,
    Vanishes,
    FindsABug,
}

/// The same for the same client in each run: SplitMix64.
fn dice(client: usize, sides: usize) -> usize {
    let mut z = (client as u64 + 7).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) % sides as u64) as usize
}

fn fate(client: usize) -> Fate {
    match dice(client, 10) {
        0 => Fate::Leaves,
        1 => Fate::Vanishes,
        2 => Fate::FindsABug,
        _ => Fate::Stays,
    }
}

/// What the clients have done so far, all together.
#[derive(Default)]
struct Progress {
    joined: AtomicUsize,
    acknowledged: AtomicUsize,
    /// Those who left, vanished, or found a bug.
    gone: AtomicUsize,
}

/// What came of one client: what was acknowledged to it, and how it ended, if that was not its own doing.
type Seen = (Vec<(i64, String)>, Option<Heard>);

async fn visit(
    client: usize,
    address: SocketAddr,
    door: Limiter,
    progress: Arc<Progress>,
) -> Result<Seen, BoxError> {
    let (room, who) = (format!("room-{}", client % 50), format!("client-{client}"));
    let permit = door.acquire().await?;
    let mut chat = Client::join(address, &room, &who).await?;
    drop(permit);
    progress.joined.fetch_add(1, SeqCst);
    let mut acknowledged = Vec::new();
    let (fate, messages) = (fate(client), 1 + dice(client + 1, 10));
    for count in 0.. {
        let text = format!("{who} {count}");
        let text = match fate {
            Fate::Leaves if count == messages => {
                chat.leave().await;
                break;
            }
            Fate::Vanishes if count == messages => {
                chat.vanish(&text).await;
                break;
            }
            Fate::FindsABug if count == messages => "/panic".to_owned(),
            _ => text,
        };
        match chat.say(&text).await {
            Ok(number) => acknowledged.push((number, text)),
            Err(end) => {
                if matches!(end, Heard::Farewell(1011)) {
                    progress.gone.fetch_add(1, SeqCst);
                }
                return Ok((acknowledged, Some(end)));
            }
        }
        progress.acknowledged.fetch_add(1, SeqCst);
        sleep(Duration::from_millis(20)).await;
    }
    progress.gone.fetch_add(1, SeqCst);
    Ok((acknowledged, None))
}

/// Raises the limit of open files to what is allowed, for this process and those that it starts, and returns how many clients that
/// leaves room for.
fn room_for(clients: usize) -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum.map(|most| most.min(16_384)).or(Some(16_384));
    setrlimit(Resource::Nofile, limit).expect("a limit may be raised to the maximum");
    let most = limit.current.map_or(clients, |most| most as usize - 100);
    if most < clients {
        println!("only {most} clients: no more files may be open here");
    }
    clients.min(most)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_thousand_clients_nothing_is_lost_that_was_acknowledged() {
    const GRACE: Duration = Duration::from_secs(40);
    let clients = room_for(1_000);
    let mut service = Service::start(GRACE).await;
    let (address, progress) = (service.public, Arc::new(Progress::default()));
    let door = Limiter::new(100); // so that nobody takes us for an attack
    let (told, seen) = scope(async |group: &TaskGroup| {
        let visits: Vec<_> = (0..clients)
            .map(|client| group.spawn(visit(client, address, door.clone(), progress.clone())))
            .collect();
        // In the middle of everything: some are gone, some are about to, most will stay.
        until("all are there, and talk", || {
            let so_far = |of: &AtomicUsize, most| of.load(SeqCst) >= most;
            so_far(&progress.joined, clients)
                && so_far(&progress.acknowledged, 5 * clients)
                && so_far(&progress.gone, clients / 10)
        })
        .await;
        let told = Instant::now();
        service.tell_to_stop();
        let mut seen = Vec::new();
        for visit in visits {
            seen.push(visit.await);
        }
        Ok((told, seen))
    })
    .await
    .expect("every client got in");

    let status = service.ended().await;
    let took = told.elapsed();
    assert!(took < GRACE, "{took:?}");
    assert_eq!(status.code(), Some(0));

    let mut bugs = 0;
    for (client, (_, end)) in seen.iter().enumerate() {
        match (fate(client), end) {
            (_, Some(Heard::Farewell(1001))) => {}
            (Fate::FindsABug, Some(Heard::Farewell(1011))) => bugs += 1,
            (Fate::Leaves | Fate::Vanishes, None) => {}
            other => panic!("client {client}: {other:?}"),
        }
    }
    let report = service.said("stderr");
    assert!(
        report.contains("ringfence: stopped by SIGTERM: "),
        "{report}"
    );
    assert!(report.contains(" finished, 0 forced\n"), "{report}");
    let figures = service.said("stdout");
    assert!(
        figures.ends_with(&format!(" {bugs} panicked, 0 alive\n")),
        "{bugs}, but {figures}"
    );
    let acknowledged: Vec<_> = seen
        .into_iter()
        .flat_map(|(acknowledged, _)| acknowledged)
        .collect();
    service.check(&acknowledged);
    println!(
        "{clients} clients, {} messages acknowledged, {bugs} handlers panicked, {took:?} to stop",
        acknowledged.len()
    );
}

#[tokio::test]
async fn a_handler_that_hangs_is_named_in_the_nag_in_the_report_and_in_the_tree() {
    let mut service = Service::start(Duration::from_secs(8)).await;
    let [alice, mallory] =
        ["alice", "mallory"].map(|who| Client::join(service.public, "lobby", who));
    let (mut alice, mut mallory) = (alice.await.expect("a seat"), mallory.await.expect("a seat"));
    let mut acknowledged = Vec::new();
    for (who, text) in [(&mut alice, "hello"), (&mut mallory, "hi")] {
        let number = who.say(text).await.expect("it is accepted");
        acknowledged.push((number, text.to_owned()));
    }
    let done = scope(async |group: &TaskGroup| {
        let hung = group.spawn(async move { Ok(mallory.say("/hang").await) });
        for _ in ["hi", "/hang"] {
            assert!(matches!(alice.hear().await, Heard::Said));
        }
        let told = group.spawn(async move { Ok(last_words(alice).await) });

        let place = "spawned at examples/chat/talk.rs";
        until("both are in the tree", || {
            let tree = service.tree(&[]);
            ["alice", "mallory"]
                .iter()
                .all(|who| tree.contains(&format!("`{who}`, {place}")))
        })
        .await;
        let mermaid = service.tree(&["--mermaid"]);
        assert!(
            mermaid.starts_with("flowchart TD") && mermaid.contains("mallory"),
            "{mermaid}"
        );
        let json = service.tree(&["--json"]);
        assert!(
            json.starts_with("{\"groups\":[") && json.contains("\"mallory\""),
            "{json}"
        );

        service.tell_to_stop();
        assert!(matches!(told.await, Heard::Farewell(1001)));
        let named = format!("\n  task `chat/talk/connection/mallory` {place}");
        until("it is told who is waited for", || {
            let nags = service.said("stderr");
            let last = nags
                .rfind("SIGTERM: still waiting for")
                .map(|at| &nags[at..]);
            last.is_some_and(|nag| nag.contains(&named) && !nag.contains("alice"))
        })
        .await;
        let picture = service.folder.path().join("tree.svg");
        service.tree(&["--svg", picture.to_str().expect("a path of ours")]);
        let picture = fs::read_to_string(picture).expect("a picture");
        for tree in [service.tree(&[]), picture] {
            let line = tree.lines().find(|line| line.contains("`mallory`"));
            let line = line.expect("it is there");
            assert!(line.contains(", cancelling, "), "{line}");
            assert!(!tree.contains("`alice`"), "{tree}");
        }

        assert_eq!(service.ended().await.code(), Some(143));
        let report = service.said("stderr");
        let (_, report) = report
            .split_once("ringfence: stopped by SIGTERM: ")
            .expect("a report");
        assert!(
            report.contains(&named) && !report.contains("alice"),
            "{report}"
        );
        assert!(matches!(hung.await, Err(Heard::Lost)));
        Ok(())
    });
    done.await.expect("nothing fails");
    service.check(&acknowledged);
}

/// Listens until the end.
async fn last_words(mut client: Client) -> Heard {
    loop {
        match client.hear().await {
            Heard::Said | Heard::Accepted(_) => {}
            end => return end,
        }
    }
}

#[tokio::test]
async fn while_the_disk_refuses_messages_wait_and_nothing_is_lost() {
    let mut service = Service::start(Duration::from_secs(40)).await;
    let mut alice = Client::join(service.public, "lobby", "alice")
        .await
        .expect("a seat");
    let mut acknowledged = Vec::new();
    let mut say = async |text: String| {
        let number = alice.say(&text).await.expect("it is accepted");
        acknowledged.push((number, text));
    };
    say("/jam".to_owned()).await;
    until("its batch is written after all", || {
        let said = service.said("stdout");
        said.contains("1 messages accepted, 1 stored")
    })
    .await;
    assert!(
        service
            .said("stderr")
            .contains("panicked: a batch is jammed; again in")
    );

    let writer = service.database();
    writer
        .execute_batch("BEGIN IMMEDIATE")
        .expect("nobody else writes");
    for count in 0..100 {
        say(format!("message {count}")).await;
    }
    let refused = || {
        service
            .said("stderr")
            .contains("database is locked; again in")
    };
    until("it is refused", refused).await;
    service.tell_to_stop();
    assert!(matches!(last_words(alice).await, Heard::Farewell(1001)));
    until("it is told to stop all the same", || {
        service.tree(&[]).contains("`chat/keep`: closing")
    })
    .await;
    writer.execute_batch("ROLLBACK").expect("it was begun");
    assert_eq!(service.ended().await.code(), Some(0));
    service.check(&acknowledged);
}

#[test]
fn the_demonstration_proves_it_and_ends_by_itself() {
    let output = Command::new(programs().join("chat"))
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        text.contains(
            "37 of them were told that the service stops, 1 that their message has found a bug"
        ),
        "{text}"
    );
    assert!(text.contains("each of them is in the database"), "{text}");
}
