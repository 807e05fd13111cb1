//! A TCP server with a group for each connection and a cap on how many are open; drained on Ctrl-C.
//!
//! Each line of a client is a job, and the jobs of a connection run side by side, as children of the connection's group. So a
//! client that hangs up takes its jobs with it, and a server that is stopped lets the jobs finish that have begun. Without
//! arguments it plays its own clients, some of which hang up early, and ends when they are done. It proves that each has the answers
//! that it waited for, that no more than the cap were served at once, and that nothing is left of any of them:
//!
//! ```text
//! cargo run --release --example tcp_server
//! cargo run --release --example tcp_server -- serve 127.0.0.1:7878     (then: nc 127.0.0.1 7878, "50 hello", Ctrl-C)
//! ```

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a program")]

use std::io;
use std::net::SocketAddr;
use std::process::{ExitCode, Termination as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use ringfence::queue::{Receiver, Sender, bounded};
use ringfence::{GroupError, Process, Ready, Scope, Spawner, TaskGroup, scope, token};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};

/// How many connections are open at once; the others wait in the listener's backlog.
const CAP: usize = 32;
/// How many jobs of one connection run at once.
const JOBS: usize = 4;
/// As many as the cap and a short backlog have room for.
const CLIENTS: usize = 120;
const GRACE: Duration = Duration::from_secs(2);

#[derive(Default)]
struct Stats {
    open: AtomicUsize,
    most_open: AtomicUsize,
    connections: AtomicUsize,
    /// Jobs that have begun, that were answered, and that are alive.
    begun: AtomicUsize,
    answered: AtomicUsize,
    alive: AtomicUsize,
}

/// Counts one up for as long as it lives.
struct Count(Arc<Stats>, fn(&Stats) -> &AtomicUsize);

impl Count {
    fn up(stats: &Arc<Stats>, of: fn(&Stats) -> &AtomicUsize) -> Self {
        of(stats).fetch_add(1, Relaxed);
        Self(stats.clone(), of)
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        (self.1)(&self.0).fetch_sub(1, Relaxed);
    }
}

/// Accepts connections until it is asked to end.
async fn serve(
    ready: Ready<SocketAddr>,
    address: SocketAddr,
    group: Spawner<io::Error>,
    stats: Arc<Stats>,
) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    ready.set(listener.local_addr()?);
    let connections = group.limit(CAP);
    let asked_to_end = token();
    loop {
        let (stream, _) = tokio::select! {
            accepted = listener.accept() => accepted?,
            () = asked_to_end.cancelled() => return Ok(()),
        };
        stats.connections.fetch_add(1, Relaxed);
        let stats = stats.clone();
        // Waits here when the cap is reached: nothing is accepted that nobody would serve.
        connections
            .spawn(async move {
                let open = Count::up(&stats, |stats| &stats.open);
                stats.most_open.fetch_max(stats.open.load(Relaxed), Relaxed);
                // What a client does wrong ends its connection, not the server.
                drop(connection(stream, &stats).await);
                drop(open);
            })
            .await;
    }
}

/// Serves one client. When this comes back, nothing of it is left.
async fn connection(stream: TcpStream, stats: &Arc<Stats>) -> Result<(), GroupError<io::Error>> {
    let (reader, writer) = stream.into_split();
    Scope::new()
        .grace(GRACE)
        .run(async |group: &TaskGroup<io::Error>| {
            let (answers, outgoing) = bounded(JOBS);
            group.spawn(answer(writer, outgoing));
            let jobs = group.limit(JOBS);
            let mut lines = BufReader::new(reader).lines();
            loop {
                let line = tokio::select! {
                    line = lines.next_line() => line?,
                    () = token().cancelled() => return Ok(()), // begun jobs finish, and are answered
                };
                let Some(line) = line else {
                    return Ok(());
                };
                jobs.spawn(job(line, answers.clone(), stats.clone())).await;
            }
        })
        .await
}

/// Writes the answers of a connection. A client that has hung up fails the group, which cancels its jobs.
async fn answer(mut writer: OwnedWriteHalf, mut answers: Receiver<String>) -> io::Result<()> {
    while let Ok(answer) = answers.recv().await {
        writer.write_all(answer.as_bytes()).await?;
    }
    writer.shutdown().await
}

/// One job: `<milliseconds> <text>`.
async fn job(line: String, answers: Sender<String>, stats: Arc<Stats>) -> io::Result<()> {
    let _alive = Count::up(&stats, |stats| &stats.alive);
    stats.begun.fetch_add(1, Relaxed);
    let (time, text) = line.split_once(' ').unwrap_or(("", &line));
    let answer = match time.parse() {
        Ok(millis) => {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            format!("{}\n", text.to_uppercase())
        }
        Err(_) => format!("expected `<milliseconds> <text>`, not `{line}`\n"),
    };
    if answers.send(answer).await.is_ok() {
        stats.answered.fetch_add(1, Relaxed);
    }
    Ok(())
}

/// A client: asks ten things, and reads the answers, or hangs up after the first one.
async fn client(address: SocketAddr, number: usize) -> io::Result<usize> {
    let stream = TcpStream::connect(address).await?;
    let (reader, mut writer) = stream.into_split();
    for job in 0..10 {
        let line = format!("{} client {number} job {job}\n", (number + job) % 7);
        writer.write_all(line.as_bytes()).await?;
    }
    let mut answers = BufReader::new(reader).lines();
    let most = if number % 5 == 0 { 1 } else { 10 };
    let mut received = 0;
    while received < most && answers.next_line().await?.is_some() {
        received += 1;
    }
    Ok(received)
}

/// Plays all clients at once, and returns how many answers they have.
async fn visit(address: SocketAddr) -> Result<usize, GroupError<io::Error>> {
    scope(async |group: &TaskGroup<io::Error>| {
        let clients = (0..CLIENTS).map(|number| client(address, number));
        let received = group.try_join_all(clients).await?;
        Ok(received.iter().sum())
    })
    .await
}

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let (plays, address) = match args[..] {
        [] => (true, "127.0.0.1:0".parse()),
        ["serve", address] => (false, address.parse()),
        _ => (false, "".parse()),
    };
    let Ok(address) = address else {
        eprintln!(
            "usage: tcp_server [serve <address:port>], not: {}",
            args.join(" ")
        );
        return ExitCode::from(2);
    };

    let stats = Arc::new(Stats::default());
    let began = Instant::now();
    let process = Process::new().name("server").grace(GRACE);
    let report = process.run(async |group: &TaskGroup<io::Error>| {
        let (spawner, stats) = (group.spawner(), stats.clone());
        let server = group.start(move |ready| serve(ready, address, spawner, stats));
        let (address, server) = server.await.map_err(io::Error::other)?;
        println!("listening on {address}, at most {CAP} connections at once");
        if plays {
            let received = visit(address).await.map_err(io::Error::other)?;
            println!("the clients received {received} answers");
            assert_eq!(received, CLIENTS / 5 + CLIENTS / 5 * 4 * 10, "each its own");
            server.cancel();
        }
        Ok(())
    });
    let report = report.await;

    let Stats {
        open,
        most_open,
        connections,
        begun,
        answered,
        alive,
    } = &*stats;
    println!("{connections:?} connections, at most {most_open:?} at once, {open:?} left");
    println!("{begun:?} jobs begun, {answered:?} answered, {alive:?} left");
    println!("{:.1?} in all", began.elapsed());
    let left = open.load(Relaxed) + alive.load(Relaxed);
    assert_eq!(left, 0, "nothing outlives its scope");
    assert!(most_open.load(Relaxed) <= CAP, "too many at once");
    report.report()
}
