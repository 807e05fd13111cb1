//! Concurrent transactions on an embedded database, through a pool of connections, some of them cancelled half-way.
//!
//! ```sh
//! cargo run --example database
//! ```
//!
//! Accounts pass money to one another, many at once, until a deadline. A transfer that fails, or that nobody waits for any more, is
//! rolled back. The program proves that no money is lost, that the log has just the transfers that were told as done, and that each
//! connection is back in the pool; then it ends by itself.

#![expect(clippy::print_stdout, reason = "it is a program")]

use std::time::Duration;

use ringfence::queue::{Queue, Receiver};
use ringfence::{BoxError, Deadline, Scope, TaskGroup, fan_out, scope};
use rusqlite::{Connection, Transaction, TransactionBehavior};

const ACCOUNTS: u32 = 10;
const EACH: i64 = 1_000;
const CONNECTIONS: usize = 4;
/// More than there are connections: the others wait in line.
const AT_ONCE: usize = 32;

/// Connections wait in a queue: who comes first is served first, and a wait that is cancelled leaves nothing behind. A delivery that is
/// dropped, whatever happens to its borrower, is in the queue again.
#[derive(Clone)]
struct Pool(Receiver<Connection>);

impl Pool {
    fn open(path: &std::path::Path) -> rusqlite::Result<Self> {
        let (sender, free) = Queue::bounded(CONNECTIONS).redeliver(u32::MAX).build();
        for _ in 0..CONNECTIONS {
            let connection = Connection::open(path)?;
            connection.pragma_update(None, "journal_mode", "wal")?;
            connection.busy_timeout(Duration::from_secs(10))?;
            drop(sender.try_send(connection)); // there is room
        }
        Ok(Self(free))
    }

    /// Runs `work` in a transaction, on a thread that may block. It is committed if `work` succeeds and its caller has not been
    /// cancelled by then, and rolled back otherwise.
    async fn transaction<T, F>(&self, work: F) -> Result<T, BoxError>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, BoxError> + Send + 'static,
    {
        let mut connection = self.0.clone().deliver().await?;
        let run = scope(async |group: &TaskGroup| {
            let token = group.token();
            let done = group.spawn_blocking(move || {
                let transaction =
                    connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let value = work(&transaction)?;
                if token.is_cancelled() {
                    return Err("cancelled before its commit".into()); // dropped: rolled back
                }
                transaction.commit()?;
                Ok(value)
            });
            Ok(done.await)
        });
        run.await.or_else(|error| Err(error.into_first()?))
    }
}

fn balance(transaction: &Transaction<'_>, account: u32) -> rusqlite::Result<i64> {
    transaction.query_row(
        "SELECT money FROM account WHERE id = ?1",
        [account],
        |row| row.get(0),
    )
}

fn transfer(transaction: &Transaction<'_>, number: u32) -> Result<(), BoxError> {
    let (from, to) = (number % ACCOUNTS, (number * 7 + 3) % ACCOUNTS);
    let money = i64::from(number) * 370 % (EACH * 3 / 2); // the fourth has too little already
    transaction.execute(
        "UPDATE account SET money = money - ?1 WHERE id = ?2",
        (money, from),
    )?;
    // Half-way: this must never be seen from outside.
    if balance(transaction, from)? < 0 {
        return Err(format!("account {from} has no {money}").into());
    }
    transaction.execute(
        "UPDATE account SET money = money + ?1 WHERE id = ?2",
        (money, to),
    )?;
    transaction.execute("INSERT INTO log (number) VALUES (?1)", [number])?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let folder = tempfile::tempdir()?;
    let pool = Pool::open(&folder.path().join("bank.sqlite"))?;
    let made = pool.transaction(|transaction| {
        transaction.execute_batch(
            "CREATE TABLE account (id INTEGER PRIMARY KEY, money INTEGER NOT NULL);
             CREATE TABLE log (number INTEGER PRIMARY KEY);",
        )?;
        for account in 0..ACCOUNTS {
            let row = (account, EACH);
            transaction.execute("INSERT INTO account VALUES (?1, ?2)", row)?;
        }
        Ok(())
    });
    made.await?;

    // As many transfers at once as there may be waiters; for so long, and what is under way then is cancelled.
    let told = std::sync::Arc::new(std::sync::Mutex::new((Vec::new(), 0)));
    let (inside, transfers) = (told.clone(), pool.clone());
    let all = fan_out(0..)
        .limit(AT_ONCE)
        .scope(Scope::new().deadline(Deadline::after(Duration::from_millis(500))))
        .for_each(move |number| {
            let (told, pool) = (inside.clone(), transfers.clone());
            async move {
                let done = pool.transaction(move |transaction| transfer(transaction, number));
                let done = done.await;
                let mut told = told.lock().map_err(|_| "a panic")?;
                match done {
                    Ok(()) => told.0.push(number),
                    Err(_no_money) => told.1 += 1,
                }
                Ok::<(), BoxError>(())
            }
        });
    let ended = all.await.err().ok_or("transfers without end have an end")?;
    if !ended.is_deadline_exceeded() {
        return Err(ended.into());
    }

    let seen = pool.transaction(|transaction| {
        let sum = "SELECT sum(money) FROM account";
        let money: i64 = transaction.query_row(sum, [], |row| row.get(0))?;
        let mut log = transaction.prepare("SELECT number FROM log")?;
        let log = log.query_map([], |row| row.get(0))?;
        Ok((money, log.collect::<Result<Vec<u32>, _>>()?))
    });
    let (money, log) = seen.await?;
    let (done, refused) = told.lock().map_err(|_| "a panic")?.clone();
    let unheard = log.iter().filter(|number| !done.contains(number)).count();
    println!(
        "{} transfers, {refused} refused, {unheard} committed when nobody listened any more",
        log.len()
    );
    println!(
        "{money} in all accounts, {} connections in the pool",
        pool.0.len()
    );
    assert_eq!(money, EACH * i64::from(ACCOUNTS));
    assert!(done.iter().all(|number| log.contains(number)));
    assert!(unheard <= AT_ONCE && refused > 0);
    assert_eq!(pool.0.len(), CONNECTIONS);
    Ok(())
}
