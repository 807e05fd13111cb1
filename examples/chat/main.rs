//! A chat service with real parts: HTTP and WebSockets, a store in SQLite, a live tree of its tasks, metrics, an end in order.
//!
//! ```sh
//! cargo run --example chat                               # plays its own visitors, sends itself SIGTERM, proves what it kept
//! cargo run --example chat -- --stay                     # the same, until Ctrl-C
//! cargo run --example chat -- --listen 127.0.0.1:8080    # serves: open it in a browser; Ctrl-C or SIGTERM ends it
//! cargo run --example pstree -- <address>                # from another terminal: what is alive in there just now
//! ```
//!
//! It proves that every message that was acknowledged is in the database when the process ends, that a handler that panics ends
//! its own connection and nothing else, and that nothing is alive when it says so. `tests/chat.rs` has a thousand clients at it.
//!
//! Begin with `service`: who is where, and who stops when. Then `talk`, a connection; `rooms`, who hears whom; `store`, from the
//! queue to the disk; `admin`, a look inside.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it is what the service has to say"
)]

mod admin;
mod client;
mod demonstration;
mod get;
mod http;
mod rooms;
mod service;
mod store;
mod talk;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{ExitCode, Termination as _};
use std::time::Duration;

use clap::Parser;
use ringfence::BoxError;
use service::{Service, Settings};

const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Chat over WebSockets
#[derive(Debug, Parser)]
struct Options {
    /// Serve there until a signal; without it, the demonstration
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,

    /// Where the tree and the metrics are
    #[arg(long, value_name = "ADDRESS", default_value_t = LOCAL)]
    admin: SocketAddr,

    /// Where the messages go
    #[arg(long, value_name = "FILE", default_value = "chat.db")]
    database: PathBuf,

    /// Seconds that all have to end in when they are told to
    #[arg(long, value_name = "S", default_value = "10")]
    grace: u64,

    /// Visitors of the demonstration
    #[arg(long, value_name = "N", default_value = "40")]
    visitors: usize,

    /// Have the demonstration go on until Ctrl-C
    #[arg(long)]
    stay: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let ended = match options.listen {
        Some(listen) => serve(listen, &options).await,
        None => demonstration::run(options.visitors, options.stay).await,
    };
    ended.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::FAILURE
    })
}

async fn serve(listen: SocketAddr, options: &Options) -> Result<ExitCode, BoxError> {
    let service = Service::open(Settings {
        listen,
        admin: options.admin,
        database: options.database.clone(),
        grace: Duration::from_secs(options.grace),
    })
    .await?;
    let (public, admin) = service.addresses()?;
    println!("chat on http://{public}, tree and metrics on http://{admin}");
    let (report, figures) = service.run().await;
    println!("{figures}");
    let has_lost = report.code() == 0 && figures.lost > 0;
    let code = report.report();
    Ok(if has_lost { ExitCode::FAILURE } else { code })
}
