//! The example on a real Redis: a worker process is killed half-way through its jobs, then the server; every job is
//! handled at least once.
//!
//! Needs `redis-server` (Debian: `apt-get install redis-server`); without one it says so, and does nothing. Real processes
//! run in real time, so this waits for them with a clock.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const JOBS: u32 = 200;
const PATIENCE: Duration = Duration::from_secs(60);

/// The example's binary.
fn program() -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let profile = test.ancestors().nth(2).expect("<target>/<profile>/deps");
    // A plain `cargo test` has built it; `cargo test --test redis_workers` has not.
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args([
            "build",
            "--quiet",
            "--example",
            "redis_workers",
            "--target-dir",
        ])
        .arg(profile.parent().expect("<target>"))
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    assert!(cargo.status().expect("cargo runs").success());
    profile.join(format!(
        "examples/redis_workers{}",
        std::env::consts::EXE_SUFFIX
    ))
}

/// A process that does not outlive its test.
struct Process(Child);

impl Process {
    fn start(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        Self(child.expect("it starts"))
    }

    /// As `kill -9` does.
    fn kill(mut self) {
        self.0.kill().expect("it can be killed");
        self.0.wait().expect("it is gone");
    }

    fn signal(&self, signal: &str) {
        let id = self.0.id().to_string();
        let status = Command::new("kill").args([signal, &id]).status();
        assert!(status.expect("kill runs").success());
    }

    fn has_ended(&mut self) -> bool {
        match self.0.try_wait().expect("a child of ours") {
            Some(status) => {
                assert!(status.success(), "{status}");
                true
            }
            None => false,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _gone_already = self.0.wait();
    }
}

struct Server {
    address: String,
    folder: TempDir,
    process: Option<Process>,
}

impl Server {
    fn start() -> Self {
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = free.local_addr().expect("an address").to_string();
        drop(free);
        let folder = tempfile::tempdir().expect("a folder");
        let mut server = Self {
            address,
            folder,
            process: None,
        };
        server.run();
        server
    }

    /// What was acknowledged is on the disk: `appendfsync always`.
    fn run(&mut self) {
        let port = self.address.rsplit(':').next().expect("a port");
        self.process = Some(Process::start(
            Command::new("redis-server")
                .args(["--port", port, "--bind", "127.0.0.1", "--save", ""])
                .args(["--appendonly", "yes", "--appendfsync", "always", "--dir"])
                .arg(self.folder.path()),
        ));
        until("the server answers", || self.ask("PING").contains("PONG"));
    }

    fn kill(&mut self) {
        self.process.take().expect("it runs").kill();
    }

    /// One command, one reply, as it comes; empty if nobody answers.
    fn ask(&self, command: &str) -> String {
        let Ok(mut stream) = TcpStream::connect(&self.address) else {
            return String::new();
        };
        let sent = stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes());
        let mut reply = String::new();
        let read = stream.read_to_string(&mut reply);
        if sent.is_ok() && read.is_ok() {
            reply
        } else {
            String::new()
        }
    }

    fn number(&self, command: &str) -> u32 {
        let reply = self.ask(command);
        let number = reply.lines().next().and_then(|line| line.strip_prefix(':'));
        number.and_then(|number| number.parse().ok()).unwrap_or(0)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "other processes run in real time"
)]
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited too long: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn worker(program: &Path, server: &Server, name: &str) -> Process {
    Process::start(
        Command::new(program)
            .args(["--redis", &server.address, "--name", name])
            .args(["--work", "20", "--claim-after", "300"]),
    )
}

#[test]
fn every_job_is_handled_though_a_worker_and_the_server_are_killed() {
    if Command::new("redis-server")
        .arg("--version")
        .output()
        .is_err()
    {
        println!("skipped: there is no redis-server here (Debian: apt-get install redis-server)");
        return;
    }
    let program = program();
    let mut server = Server::start();
    let sent = Command::new(&program)
        .args(["--redis", &server.address, "--send", &JOBS.to_string()])
        .status();
    assert!(sent.expect("it runs").success());
    let handled = |server: &Server| server.number("HLEN handled");

    let first = worker(&program, &server, "first");
    let mut second = worker(&program, &server, "second");
    until("some jobs are handled", || handled(&server) >= 20);

    // Stopped in the middle of a job: what the server has given it is not acknowledged. Then killed.
    until("it is half-way through a job", || {
        first.signal("-STOP");
        let pending = server.ask("XPENDING jobs workers - + 100");
        let is_working = pending.contains("first-");
        if !is_working {
            first.signal("-CONT");
        }
        is_working
    });
    first.kill();
    until("more jobs are handled", || handled(&server) >= 60);

    server.kill();
    server.run();
    let mut third = worker(&program, &server, "third");
    until("the workers end", || {
        second.has_ended() && third.has_ended()
    });

    assert_eq!(handled(&server), JOBS, "none is lost");
    let redelivered = server.number("HLEN redelivered");
    assert!(
        redelivered > 0,
        "what the first one had was delivered again"
    );
    assert!(
        server.ask("XPENDING jobs workers").contains(":0"),
        "none is left"
    );
}

#[test]
fn without_a_server_the_jobs_are_in_a_queue_of_the_process() {
    let output = Command::new(program()).output().expect("it runs");
    assert!(output.status.success());
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("100 jobs done, 10 delivered again"), "{text}");
}
