//! A TCP server with a group for each connection and a cap on how many are open; drained on Ctrl-C.
//!
//! Each line of a client is a job, and the jobs of a connection run side by side, as children of the connection's group. So a
//! client that hangs up takes its jobs with it, and a server that is stopped lets the jobs finish that have begun. Without
//! arguments it plays its own clients, some of which hang up early, and ends when they are done:
//!
//! ```text
//! cargo run --release --example tcp_server
//! cargo run --release --example tcp_server -- serve 127.0.0.1:7878     (then: nc 127.0.0.1 7878, "50 hello", Ctrl-C)
//! ```

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a program")]

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use ringfence::{GroupError, Ready, Scope, Spawner, TaskGroup, token};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// How many connections are open at once; the others wait in the listener's backlog.
const CAP: usize = 32;
/// How many jobs of one connection run at once.
const JOBS: usize = 4;
const CLIENTS: usize = 300;
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
            let (answers, outgoing) = mpsc::channel(JOBS);
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
async fn answer(mut writer: OwnedWriteHalf, mut answers: mpsc::Receiver<String>) -> io::Result<()> {
    while let Some(answer) = answers.recv().await {
        writer.write_all(answer.as_bytes()).await?;
    }
    writer.shutdown().await
}

/// One job: `<milliseconds> <text>`.
async fn job(line: String, answers: mpsc::Sender<String>, stats: Arc<Stats>) -> io::Result<()> {
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

async fn run(address: SocketAddr, clients: usize) -> Result<(), Box<dyn Error>> {
    let stats = Arc::new(Stats::default());
    let began = Instant::now();
    let ended = Scope::new()
        .name("server")
        .grace(GRACE)
        .run(async |group: &TaskGroup<io::Error>| {
            let stop = group.spawner();
            group.spawn_background(async move {
                // In a scope with a grace, whoever does not listen for its own end is waited for until the grace is over.
                tokio::select! {
                    pressed = tokio::signal::ctrl_c() => pressed.map(|()| stop.cancel_with("Ctrl-C")),
                    () = token().cancelled() => Ok(()),
                }
            });
            let (spawner, stats) = (group.spawner(), stats.clone());
            let (address, server) = group
                .start(move |ready| serve(ready, address, spawner, stats))
                .await
                .map_err(io::Error::other)?;
            println!("listening on {address}, at most {CAP} connections at once");
            if clients == 0 {
                token().cancelled().await;
                return Ok(0);
            }
            let clients: Vec<_> = (0..clients)
                .map(|number| {
                    // A client that the network cuts off is no failure of the server's.
                    group.spawn(async move { Ok(client(address, number).await.unwrap_or(0)) })
                })
                .collect();
            let mut received = 0;
            for client in clients {
                received += client.await;
            }
            server.cancel();
            Ok(received)
        })
        .await;
    match &ended {
        Ok(received) => println!("the clients received {received} answers"),
        Err(error) if error.is_cancelled() && error.is_empty() => println!("stopped: {error}"),
        Err(_) => {}
    }
    println!(
        "{} connections, at most {} at once; {} jobs begun, {} answered, {} cut off; {:?}",
        stats.connections.load(Relaxed),
        stats.most_open.load(Relaxed),
        stats.begun.load(Relaxed),
        stats.answered.load(Relaxed),
        stats.begun.load(Relaxed) - stats.answered.load(Relaxed),
        began.elapsed()
    );
    let (open, alive) = (stats.open.load(Relaxed), stats.alive.load(Relaxed));
    println!("open connections: {open}, jobs alive: {alive}");
    assert_eq!((open, alive), (0, 0), "nothing outlives its scope");
    match ended {
        Err(error) if !error.is_empty() => Err(error.into()),
        _ => Ok(()),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let (address, clients) = match args.as_slice() {
        [] => ("127.0.0.1:0", CLIENTS),
        ["serve", address] => (*address, 0),
        _ => ("", 0),
    };
    let Ok(address) = address.parse() else {
        eprintln!(
            "usage: tcp_server [serve <address:port>], not: {}",
            args.join(" ")
        );
        return ExitCode::from(2);
    };
    match run(address, clients).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
