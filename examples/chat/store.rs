//! From a bounded queue to the disk.
//!
//! A message is accepted when it is in the queue. From there it goes into the database, however often that takes: a batch that
//! could not be written goes back to its place, and is delivered again.

use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ringfence::queue::{Delivery, Queue, Receiver, Sender};
use ringfence::{BoxError, Scope, TaskGroup, scope, token};
use rusqlite::Connection;
use tokio::time::sleep;

/// How many messages wait for the disk before those who send them do.
const WAITING: usize = 1_000;
/// As many as there are, up to so many, or what has come so long after the first one.
const BATCH: usize = 250;
const LINGER: Duration = Duration::from_millis(10);
/// How long the disk is left alone when it has refused a batch.
const PAUSE: Duration = Duration::from_millis(100);

const TABLE: &str = "
    PRAGMA journal_mode = WAL;
    CREATE TABLE IF NOT EXISTS messages (number INTEGER PRIMARY KEY, room TEXT, who TEXT, text TEXT);
";

struct Message {
    number: i64,
    room: Arc<str>,
    who: Arc<str>,
    text: String,
}

/// Accepts messages, and writes them down.
pub(crate) struct Store {
    queue: Sender<Message>,
    outlet: Receiver<Message>,
    database: Mutex<Connection>,
    next: AtomicI64,
    accepted: AtomicU64,
    stored: AtomicU64,
}

impl Store {
    pub(crate) fn open(path: &Path) -> rusqlite::Result<Self> {
        let database = Connection::open(path)?;
        database.execute_batch(TABLE)?;
        database.busy_timeout(PAUSE)?;
        let last = "SELECT coalesce(max(number), 0) FROM messages";
        let last: i64 = database.query_one(last, (), |row| row.get(0))?;
        let (queue, outlet) = Queue::bounded(WAITING).redeliver(u32::MAX).build();
        Ok(Self {
            queue,
            outlet,
            database: Mutex::new(database),
            next: AtomicI64::new(last + 1),
            accepted: AtomicU64::new(0),
            stored: AtomicU64::new(0),
        })
    }

    /// Accepts a message, and returns its number; waits while too many wait for the disk. `None` if nothing is accepted any more.
    pub(crate) async fn accept(&self, room: &Arc<str>, who: &Arc<str>, text: &str) -> Option<i64> {
        let number = self.next.fetch_add(1, Relaxed);
        let message = Message {
            number,
            room: room.clone(),
            who: who.clone(),
            text: text.to_owned(),
        };
        self.queue.send(message).await.ok()?;
        self.accepted.fetch_add(1, Relaxed);
        Some(number)
    }

    /// Writes down what was accepted. Asked to end, it accepts nothing more, and ends when all is written.
    pub(crate) async fn flush(self: Arc<Self>) -> Result<(), BoxError> {
        let mut messages = self.outlet.clone();
        let done = scope(async |group: &TaskGroup| {
            let store = self.clone();
            group
                .named("closes the queue")
                .spawn_background(async move {
                    token().cancelled().await;
                    store.queue.close();
                });
            let mut batch = Vec::new();
            while messages
                .deliver_batch(&mut batch, BATCH, LINGER)
                .await
                .is_ok()
            {
                let (store, batch) = (self.clone(), std::mem::take(&mut batch));
                // A scope for each: with what fails or panics in there, the batch is dropped, and goes back to its place.
                let write = Scope::new().panics_as_errors();
                let write = write.run(async |group: &TaskGroup| {
                    let written = group.spawn_blocking(move || {
                        store.write(&batch)?;
                        Ok(batch)
                    });
                    Ok(written.await)
                });
                match write.await {
                    Ok(batch) => batch.into_iter().for_each(Delivery::done),
                    Err(error) => {
                        eprintln!("store: {error}; again in {PAUSE:?}");
                        sleep(PAUSE).await;
                    }
                }
            }
            Ok(())
        });
        Ok(done.await?)
    }

    /// A batch that comes here again although it was written, as its thread panicked after that, is written once.
    fn write(&self, batch: &[Delivery<Message>]) -> rusqlite::Result<()> {
        let mut database = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = database.transaction()?;
        let mut row = transaction.prepare("INSERT OR IGNORE INTO messages VALUES (?, ?, ?, ?)")?;
        let mut count = 0;
        for message in batch {
            // A fault, for the tests.
            assert!(
                message.text != "/jam" || message.attempt() > 1,
                "a batch is jammed"
            );
            let Message {
                number,
                room,
                who,
                text,
            } = &**message;
            count += row.execute((number, &**room, &**who, text))?;
        }
        drop(row);
        transaction.commit()?;
        self.stored.fetch_add(count as u64, Relaxed);
        Ok(())
    }

    /// Returns how many messages were accepted.
    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.load(Relaxed)
    }

    /// Returns how many of them were written down.
    pub(crate) fn stored(&self) -> u64 {
        self.stored.load(Relaxed)
    }

    /// Returns how many wait to be.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Gives up on what is left when all is over, and returns how many messages that is.
    pub(crate) fn left_over(&self) -> usize {
        self.outlet.abort().len()
    }
}
