//! Soak: all parts of the library together, on a real runtime and the real clock, with faults drawn from a seed.
//!
//! Each episode wires a service together: supervisors, queues and pools, fan-outs, scopes in scopes, flights, limits, retries. Things
//! fail, throw, block, are cancelled, dropped half-way, aborted from outside; some runtimes are shut down in the middle. After each
//! episode the books must balance, exactly: see `ledger`. A seed draws the same episodes again; what their tasks do meanwhile is the
//! machine's affair. `README.md` has the bugs that were planted to see whether this finds any.

mod faults;
mod jobs;
mod ledger;
mod memory;
mod parts;
mod queues;
mod services;
mod witness;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use ringfence::inspect::Counters;
use ringfence::{
    KeyedLimiter, Limiter, Rate, RateLimiter, RetryBudget, Scope, Slots, TaskGroup, root, snapshot,
};
use tokio::runtime::{Builder, Runtime};
use tokio::time::sleep;

use faults::{RARITY, Rng, cut};
use ledger::{Census, Fault, KIND_NAMES, KINDS, Kind, check, count};
use memory::Low;
use parts::{Ctx, Flights, World, any, options, ran};
use witness::{Collector, see_payload, settle};

struct Args {
    seed: u64,
    tasks: u64,
    items: u64,
    minutes: f64,
    is_threaded: bool,
    workers: usize,
    /// From this episode on, and so many: to replay one.
    first: u64,
    episodes: u64,
}

impl Args {
    fn read() -> Result<Self, String> {
        let now = std::time::UNIX_EPOCH
            .elapsed()
            .map_or(1, |since| since.as_millis() as u64);
        let mut args = Self {
            seed: now,
            tasks: 20_000,
            items: 0,
            minutes: f64::MAX,
            is_threaded: true,
            workers: 2,
            first: 0,
            episodes: u64::MAX,
        };
        let mut words = std::env::args().skip(1);
        while let (Some(name), value) = (words.next(), words.next().unwrap_or_default()) {
            let number = || {
                value
                    .parse::<u64>()
                    .map_err(|_| format!("{name} wants a number, not `{value}`"))
            };
            match name.as_str() {
                "--seed" => args.seed = number()?,
                "--tasks" => args.tasks = number()?,
                "--items" => args.items = number()?,
                "--minutes" => {
                    args.minutes = value.parse().map_err(|_| "--minutes wants a number")?
                }
                "--flavor" => args.is_threaded = value == "mt",
                "--workers" => args.workers = number()? as usize,
                "--first" => args.first = number()?,
                "--trace" => faults::IS_TRACED.store(number()? > 0, SeqCst),
                "--episodes" => args.episodes = number()?,
                _ => return Err(format!("what is `{name}`?")),
            }
        }
        Ok(args)
    }

    fn runtime(&self) -> Runtime {
        let mut builder = if self.is_threaded {
            Builder::new_multi_thread()
        } else {
            Builder::new_current_thread()
        };
        builder
            .worker_threads(self.workers.max(1))
            .enable_time()
            .build()
            .expect("a runtime")
    }
}

/// The episode that runs, and when it began: for the watchdog.
static EPISODE: AtomicU64 = AtomicU64::new(0);
static BEGAN: AtomicU64 = AtomicU64::new(0);

/// Ends the process when an episode does not end, and shows who is still there.
fn watch(seed: u64, start: Instant) {
    let bound = std::env::var("SOAK_HANG_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(60);
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_millis(500));
            let since = start.elapsed().as_secs().saturating_sub(BEGAN.load(SeqCst));
            if since > bound {
                println!(
                    "HANG: seed {seed}, episode {} for {since} s\n{}",
                    EPISODE.load(SeqCst),
                    snapshot()
                );
                std::process::abort();
            }
        }
    });
}

fn world(rng: &mut Rng) -> Arc<World> {
    Arc::new(World {
        limiter: Limiter::new(rng.within(2..6) as usize),
        adaptive: Limiter::adaptive(1, 8),
        keyed: KeyedLimiter::new(rng.within(1..3) as usize),
        rate: RateLimiter::new(Rate::per_second(2000).burst(2)), // so that there is a line
        slots: Slots::new(rng.within(1..4) as usize),
        budget: RetryBudget::new(0.2),
    })
}

/// All parts, in one scope.
async fn service(world: Arc<World>, mut rng: Rng) {
    let (counters, mut own) = (Arc::new(Counters::new()), rng.split());
    let is_counted = rng.one_in(2);
    let mut scope = Scope::new().name("soak").grace(rng.millis(0..5));
    if is_counted {
        scope = scope.observer(Arc::new((counters.clone(), Collector)));
    }
    let scope = scope.run(async move |group: &TaskGroup<Fault>| {
        let flights = Arc::new(Flights::new());
        let items = [20, 200, 2000, 8000][own.below(4) as usize];
        let ctx = Ctx {
            world,
            flights,
            depth: 3,
            items,
        };
        for _ in 0..own.within(1..20) {
            let (part, is_contained) = (any(&ctx, &mut own), own.one_in(2));
            let around = options(&mut own).panics_as_errors();
            drop(group.spawn(async move {
                if !is_contained {
                    return part.await;
                }
                settle(around.run(async |_: &TaskGroup<Fault>| part.await).await);
                Ok(())
            }));
        }
        if own.one_in(10) {
            sleep(own.millis(0..10)).await;
            count(Kind::Cancel);
            group.cancel_with("the day is over");
        }
        Ok(())
    });
    let is_whole = ran("service", &Census::default(), scope, &mut rng)
        .await
        .is_some();
    let live = counters.total().live();
    check(!is_whole || live == 0, || {
        format!("{live} children outlived their service")
    });
}

/// A service in a task, and whatever happens to that.
async fn episode(world: Arc<World>, rng: &mut Rng) {
    let task = tokio::spawn(service(world, rng.split()));
    if rng.one_in(6) {
        sleep(rng.millis(0..15)).await;
        count(Kind::Aborted);
        task.abort();
    }
    if let Err(error) = task.await {
        if let Ok(panic) = error.try_into_panic() {
            see_payload(&*panic);
        }
    }
    let waited = root().wait(Duration::from_secs(30)).await;
    check(waited.is_ok(), || "hang: orphans do not end".into());
}

/// A runtime of its own, which is shut down in the middle of it all.
fn shut_down_in_the_middle(args: &Args, world: Arc<World>, rng: &mut Rng) {
    let runtime = args.runtime();
    let (after, mut own) = (rng.millis(0..15), rng.split());
    let task = runtime.spawn(service(world, rng.split()));
    runtime.block_on(async { cut(sleep(after), &mut own).await });
    count(Kind::Shutdown);
    drop(runtime);
    let reader = Builder::new_current_thread().build().expect("a runtime");
    if let Err(error) = reader.block_on(task) {
        if let Ok(panic) = error.try_into_panic() {
            see_payload(&*panic);
        }
    }
}

/// Everything has to come to rest soon: a thread that was given up may take a moment.
fn at_rest() -> bool {
    let bound = Instant::now() + Duration::from_secs(5);
    while ledger::open_accounts(None) > 0 || !snapshot().groups().is_empty() {
        if Instant::now() > bound {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

fn balance(world: &World) -> Vec<String> {
    if !at_rest() && !snapshot().groups().is_empty() {
        ledger::broken(format!("leaked groups:\n{}", snapshot()));
    }
    let limits =
        [&world.limiter, &world.adaptive].map(|limiter| (limiter.in_flight(), limiter.waiting()));
    check(limits == [(0, 0); 2], || {
        format!("permits are out, or waited for: {limits:?}")
    });
    check(world.keyed.keys() == 0, || {
        format!("keys are in use: {}", world.keyed.keys())
    });
    check(world.rate.waiting() == 0, || {
        "somebody waits for a rate".into()
    });
    check(world.slots.free() == world.slots.limit(), || {
        format!("slots are out: {:?}", world.slots)
    });
    ledger::close()
}

fn main() -> ExitCode {
    let args = match Args::read() {
        Ok(args) => args,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let flavor = if args.is_threaded {
        format!("mt with {} workers", args.workers)
    } else {
        "ct".into()
    };
    println!("soak: seed {} on {flavor}", args.seed);
    drop(ringfence::observe(Arc::new(Collector)));
    let (start, runtime) = (Instant::now(), args.runtime());
    watch(args.seed, start);
    let (mut found, mut low, mut number) = (0, Low::new(), args.first);
    while number - args.first < args.episodes
        && (ledger::TASKS.load(SeqCst) < args.tasks || ledger::ITEMS.load(SeqCst) < args.items)
        && start.elapsed().as_secs_f64() < args.minutes * 60.0
        && found < 20
    {
        EPISODE.store(number, SeqCst);
        BEGAN.store(start.elapsed().as_secs(), SeqCst);
        let mut rng = Rng::new(Rng::new(args.seed ^ number.rotate_left(32)).next());
        RARITY.store(
            [0, 20_000, 2_000, 300, 50, 12][rng.below(6) as usize],
            SeqCst,
        );
        let world = world(&mut rng);
        let run = || match rng.one_in(12) {
            true => shut_down_in_the_middle(&args, world.clone(), &mut rng),
            false => runtime.block_on(episode(world.clone(), &mut rng)),
        };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
            // Not seen, so that it is said where it comes from.
            ledger::broken(format!(
                "{:?} went through the runtime",
                panic.downcast_ref::<String>()
            ));
        }
        for broken in balance(&world).into_iter().take(20) {
            println!("BROKEN: seed {}, episode {number}: {broken}", args.seed);
            found += 1;
        }
        drop(world);
        low.look();
        number += 1;
    }
    // Once a place was shown, the process keeps its own symbols.
    if let (0, Some(leak)) = (found, low.leak()) {
        println!("BROKEN: seed {}: {leak}", args.seed);
        found += 1;
    }
    let (tasks, items) = (ledger::TASKS.load(SeqCst), ledger::ITEMS.load(SeqCst));
    println!(
        "episodes  {}, in {:.1} s",
        number - args.first,
        start.elapsed().as_secs_f64()
    );
    println!(
        "tasks     {tasks}\nitems     {items}\npeak live {}",
        ledger::PEAK.load(SeqCst)
    );
    for (name, kind) in KIND_NAMES.iter().zip(&KINDS) {
        println!("{:9} {name}", kind.load(SeqCst));
    }
    println!("memory    {}", low.report());
    println!("leaked, hanging, lost, doubled, out of order: {found}");
    if found == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
