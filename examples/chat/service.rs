//! Who is where, and who stops when.
//!
//! ```text
//! listen   takes in connections                              told to stop first
//! talk     a group a connection                              when nobody comes in any more
//! keep     a supervisor: statistics, the store, the admin    when nobody talks any more, in this order
//! ```
//!
//! So the store outlives everybody who may have something for it, and the tree can be looked at until the very end: by whoever
//! wants to know what the end is waiting for.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ringfence::inspect::{Counters, Counts, collect_details};
use ringfence::supervise::{Child, Periodic, RunEnded, Supervisor, WhatNext};
use ringfence::{BoxError, Process, RunReport, observe};
use tokio::net::TcpListener;

use crate::admin::Look;
use crate::rooms::Rooms;
use crate::store::Store;
use crate::{admin, http, talk};

/// More than that at once are turned away.
const CONNECTIONS: usize = 10_000;

#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) listen: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) database: PathBuf,
    pub(crate) grace: Duration,
}

/// What every connection needs.
pub(crate) struct Chat {
    pub(crate) rooms: Arc<Rooms>,
    pub(crate) store: Arc<Store>,
    /// How long a client has to take leave.
    pub(crate) farewell: Duration,
}

/// A service that has its addresses and its database, and begins when it is run.
pub(crate) struct Service {
    public: TcpListener,
    admin: TcpListener,
    chat: Arc<Chat>,
    counters: Arc<Counters>,
    grace: Duration,
}

impl Service {
    pub(crate) async fn open(settings: Settings) -> Result<Self, BoxError> {
        let counters = Arc::new(Counters::new());
        observe(counters.clone()).map_err(|_| "a process has one service")?;
        collect_details(true); // the tree says what everybody waits for
        Ok(Self {
            public: TcpListener::bind(settings.listen).await?,
            admin: TcpListener::bind(settings.admin).await?,
            chat: Arc::new(Chat {
                rooms: Arc::default(),
                store: Arc::new(Store::open(&settings.database)?),
                farewell: settings.grace / 5, // a reader and a writer, one after the other, within the part of `talk`
            }),
            counters,
            grace: settings.grace,
        })
    }

    /// Returns where the chat is, and where the tree and the metrics are.
    pub(crate) fn addresses(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.public.local_addr()?, self.admin.local_addr()?))
    }

    /// Serves until a signal has ended it.
    pub(crate) async fn run(self) -> (RunReport<()>, Figures) {
        let Self {
            public,
            admin,
            chat,
            counters,
            grace,
        } = self;
        let report = Process::new()
            .name("chat")
            .grace(grace)
            .nag_every(Duration::from_secs(1))
            .phases(["listen", "talk", "keep"])
            .run(async |[listen, talk, keep]| {
                let parts = parts(admin, &chat, &counters);
                keep.named("parts").spawn(async { Ok(parts.run().await?) });
                let connections = talk.named("connection").limit(CONNECTIONS);
                let chat = chat.clone();
                listen.named("accept").spawn(async move {
                    let serve = |stream| {
                        let connection = talk::connection(stream, chat.clone());
                        drop(connections.try_spawn(connection)); // turned away, if there are too many
                    };
                    http::accept(&public, serve).await;
                });
                Ok(())
            })
            .await;
        let figures = Figures {
            accepted: chat.store.accepted(),
            stored: chat.store.stored(),
            lost: chat.store.left_over(),
            tasks: counters.total(),
        };
        (report, figures)
    }
}

/// The parts that are there for all the others. They are stopped from the last to the first.
fn parts(admin: TcpListener, chat: &Arc<Chat>, counters: &Arc<Counters>) -> Supervisor {
    let admin = Arc::new(admin);
    let (seen, counted) = (chat.clone(), counters.clone());
    let (store, talked) = (chat.store.clone(), chat.clone());
    let supervisor = Supervisor::new();
    let parts = supervisor.handle();
    supervisor
        .unlimited() // nobody is helped by a chat that has given up
        .grace(Duration::MAX) // the process keeps the time
        .on_end(|ended: &RunEnded<'_>| {
            if let WhatNext::Restart(delay) = ended.next {
                eprintln!("{}: {}; again in {delay:.0?}", ended.child, ended.end);
            }
        })
        .child(Child::permanent("admin", move |_| {
            let look = Look {
                chat: seen.clone(),
                counters: counted.clone(),
                parts: parts.clone(),
            };
            admin::serve(admin.clone(), Arc::new(look))
        }))
        .child(Child::permanent("store", move |_| store.clone().flush()).grace(Duration::MAX))
        .child(Child::permanent("statistics", move |_| {
            let chat = talked.clone();
            Periodic::rate(Duration::from_secs(1)).run(move |_| {
                println!("{chat}");
                async {}
            })
        }))
}

impl fmt::Display for Chat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rooms, people) = self.rooms.len();
        let (accepted, stored) = (self.store.accepted(), self.store.stored());
        write!(
            f,
            "{people} people in {rooms} rooms; {accepted} messages accepted, {stored} stored"
        )
    }
}

/// What came of it, when all is over.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) accepted: u64,
    pub(crate) stored: u64,
    /// Accepted, and never stored: the disk refused them until the grace was over.
    pub(crate) lost: usize,
    pub(crate) tasks: Counts,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            accepted,
            stored,
            lost,
            tasks,
        } = self;
        write!(
            f,
            "{accepted} messages accepted, {stored} stored, {lost} lost; {} tasks, {} panicked, {} alive",
            tasks.spawned,
            tasks.panicked,
            tasks.live()
        )
    }
}
