//! Where do we stand? Every row beside its peers, with the goals, as two tables in markdown: `report [row…]`.
//!
//! Contenders take turns, each round in another order; a ratio is taken within its round, and the median of the ratios is what
//! counts (in brackets: the middle half of them). `ct` is told in processor time, which is the time on the wall if nobody
//! else is on the machine, and stands still while others are. Several threads wait for one another, so that `mt` and
//! `task` are told in time on the wall, with the processor time in a column of its own.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use ringfence_benches::exact::{self, Callgrind, Count, Memory};
use ringfence_benches::measure::Place;
use ringfence_benches::{Row, rows};

/// Time for one row, all places, once the least number of rounds is done.
const BUDGET: Duration = Duration::from_secs(10);
const ROUNDS: std::ops::RangeInclusive<usize> = 5..=31;

/// One contender's samples in one place, a round each, in nanoseconds a unit.
#[derive(Default)]
struct Samples {
    wall: Vec<f64>,
    cpu: Vec<f64>,
}

/// A row's samples: contender by contender, place by place.
struct Timed(Vec<[Samples; 3]>);

impl Timed {
    /// The samples that are told.
    fn of(&self, contender: usize, column: usize) -> &[f64] {
        let samples = &self.0[contender][column];
        if column == 0 {
            &samples.cpu
        } else {
            &samples.wall
        }
    }
}

/// Middle half and median.
#[derive(Clone, Copy)]
struct Spread {
    low: f64,
    median: f64,
    high: f64,
}

fn spread(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let at = |part: f64| {
        values
            .get(((values.len().checked_sub(1)?) as f64 * part).round() as usize)
            .copied()
    };
    Some(Spread {
        low: at(0.25)?,
        median: at(0.5)?,
        high: at(0.75)?,
    })
}

fn ratios(of: &[f64], to: &[f64]) -> Option<Spread> {
    spread(of.iter().zip(to).map(|(of, to)| of / to))
}

/// Columns of the places, in the order of [`Place::all`].
const PLACES: [&str; 3] = ["ct", "mt", "task"];

fn sample(place: &Place, row: &Row, contender: usize, n: usize, into: &mut Samples) {
    let taken = place.once(row, &row.contenders[contender], n);
    into.wall.push(taken.wall.as_nanos() as f64 / n as f64);
    into.cpu.push(taken.cpu.as_nanos() as f64 / n as f64);
}

/// Another order each round, the same in every run: whoever comes next finds the heap as the one before has left it.
fn order(contenders: usize, round: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..contenders).collect();
    let mut state = (round as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    for last in (1..contenders).rev() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        order.swap(last, (state >> 33) as usize % (last + 1));
    }
    order
}

fn timed(places: &[Place; 3], row: &Row) -> Timed {
    let n = row.size();
    let mut timed = Timed(row.contenders.iter().map(|_| Default::default()).collect());
    for place in places {
        for contender in row.contenders {
            place.once(row, contender, n);
        }
    }
    let start = Instant::now();
    for round in 0..*ROUNDS.end() {
        if round >= *ROUNDS.start() && start.elapsed() > BUDGET {
            break;
        }
        for (column, place) in places.iter().enumerate() {
            for contender in order(row.contenders.len(), round) {
                sample(place, row, contender, n, &mut timed.0[contender][column]);
            }
        }
    }
    timed
}

fn index(row: &Row, name: &str) -> Option<usize> {
    row.contenders
        .iter()
        .position(|contender| contender.name == name)
}

fn ratio_cell(row: &Row, timed: &Timed, contender: usize, base: Option<&str>) -> String {
    let Some(base) = base.and_then(|base| index(row, base)) else {
        return "–".to_owned();
    };
    if contender == base {
        return "1".to_owned();
    }
    let show = |column: usize| {
        ratios(timed.of(contender, column), timed.of(base, column)).map_or("–".to_owned(), |r| {
            format!("{:.2} ({:.2}–{:.2})", r.median, r.low, r.high)
        })
    };
    format!("{} / {} / {}", show(0), show(1), show(2))
}

/// Whether `found` keeps under `limit`; open, if the limit lies within the middle half.
fn verdict(found: Spread, limit: f64) -> String {
    let word = match (
        found.median <= limit,
        found.low <= limit && limit < found.high,
    ) {
        (true, false) => "yes",
        (false, false) => "**no**",
        (true, true) => "yes, within the noise",
        (false, true) => "**no**, within the noise",
    };
    format!("{:.2} {word}", found.median)
}

/// The goals of a contender in time, and whether they are reached.
fn goals(row: &Row, timed: &Timed, contender: usize) -> (String, String) {
    let mut wanted = Vec::new();
    let mut reached = Vec::new();
    for goal in row
        .goals
        .iter()
        .filter(|goal| goal.who == row.contenders[contender].name)
    {
        let Some(base) = index(row, goal.against) else {
            continue;
        };
        for (column, limit) in [goal.ct, goal.mt, goal.mt].into_iter().enumerate() {
            let Some(limit) = limit else { continue };
            let found = ratios(timed.of(contender, column), timed.of(base, column));
            wanted.push(format!("{} ≤ {limit} × {}", PLACES[column], goal.against));
            reached.push(found.map_or("–".to_owned(), |found| verdict(found, limit)));
        }
    }
    (wanted.join("<br>"), reached.join("<br>"))
}

fn print_times(row: &Row, timed: &Timed) {
    let median = |values: &[f64]| spread(values.iter().copied()).map(|s| s.median);
    for (number, contender) in row.contenders.iter().enumerate() {
        let wall = |column: usize| {
            median(timed.of(number, column)).map_or("–".to_owned(), |ns| format!("{ns:.1}"))
        };
        let cpu = |column: usize| {
            index(row, row.bases.0)
                .and_then(|base| ratios(&timed.0[number][column].cpu, &timed.0[base][column].cpu))
                .map_or("–".to_owned(), |ratio| format!("{:.2}", ratio.median))
        };
        let (goal, reached) = goals(row, timed, number);
        println!(
            "| {} | {} | {} | {} | {} | {} | {} | {} / {} | {goal} | {reached} |",
            row.name,
            contender.name,
            wall(0),
            wall(1),
            wall(2),
            ratio_cell(row, timed, number, Some(row.bases.0)),
            ratio_cell(row, timed, number, row.bases.1),
            cpu(1),
            cpu(2),
        );
    }
}

/// What a contender of ours may spend, and whether it keeps to it.
fn limits(
    row: &Row,
    name: &str,
    count: Option<Count>,
    base: Option<Count>,
    memory: Option<Memory>,
) -> (String, String) {
    let mut wanted = Vec::new();
    let mut reached = Vec::new();
    let mut judge = |what: &str, limit: Option<f64>, found: Option<f64>| {
        let Some(limit) = limit else { return };
        wanted.push(format!("{what} ≤ {limit}"));
        reached.push(match found {
            // Set-up is spread over the units: a hundredth does not count.
            Some(found) if found <= limit + 0.01 => "yes".to_owned(),
            Some(_) => "**no**".to_owned(),
            None => "not counted".to_owned(),
        });
    };
    if name == "ringfence" {
        judge(
            "locked",
            row.limits.locked,
            count.and_then(|count| count.locked),
        );
        judge(
            "allocations",
            row.limits.allocations,
            memory.map(|memory| memory.allocations),
        );
        judge("bytes", row.limits.bytes, memory.map(|memory| memory.bytes));
        judge(
            "kept",
            ["void", "laden"].contains(&row.name).then_some(0.5),
            memory.and_then(|memory| memory.kept),
        );
    }
    for goal in row
        .goals
        .iter()
        .filter(|goal| goal.who == name && goal.against == row.bases.0)
    {
        let found = count
            .zip(base)
            .map(|(count, base)| count.instructions / base.instructions);
        judge(
            &format!("instructions × {}", goal.against),
            goal.instructions,
            found,
        );
    }
    (wanted.join("<br>"), reached.join("<br>"))
}

fn print_counts(
    row: &Row,
    callgrind: Option<&mut Callgrind>,
    memory: &HashMap<(String, String), Memory>,
) {
    let mut callgrind = callgrind;
    let mut base = None;
    for contender in row.contenders {
        let count =
            callgrind
                .as_deref_mut()
                .and_then(|callgrind| match callgrind.count(row, contender) {
                    Ok(count) => Some(count),
                    Err(missing) => {
                        eprintln!("{} / {}: {missing}", row.name, contender.name);
                        None
                    }
                });
        if contender.name == row.bases.0 {
            base = count;
        }
        let memory = memory
            .get(&(row.name.to_owned(), contender.name.to_owned()))
            .copied();
        let show = |value: Option<f64>, digits: usize| {
            value.map_or("–".to_owned(), |value| format!("{value:.digits$}"))
        };
        let (goal, reached) = limits(row, contender.name, count, base, memory);
        println!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {goal} | {reached} |",
            row.name,
            contender.name,
            show(count.map(|count| count.instructions), 0),
            show(
                count
                    .zip(base)
                    .map(|(count, base)| count.instructions / base.instructions),
                2
            ),
            show(count.and_then(|count| count.locked), 1),
            show(memory.map(|memory| memory.allocations), 2),
            show(memory.map(|memory| memory.bytes), 0),
            show(memory.and_then(|memory| memory.kept), 0),
        );
    }
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let rows: Vec<&Row> = rows::ALL
        .iter()
        .copied()
        .filter(|row| wanted.is_empty() || wanted.iter().any(|name| name == row.name))
        .collect();

    for row in &rows {
        println!(
            "- **{}**: {} ({} {} an iteration)",
            row.name,
            row.question,
            row.size(),
            row.unit
        );
    }
    println!();
    println!(
        "`ct` = `current_thread`; `mt` = `multi_thread` with two workers, the body inside `block_on`; `task` = the same, the body in a task. \
         Bare and JoinSet: the first contender of a row, and the one with tokio's `JoinSet`."
    );
    println!();
    println!(
        "| row | contender | ns/unit ct | ns/unit mt | ns/unit task | × bare ct / mt / task | × JoinSet ct / mt / task | CPU time × bare mt / task | goal | reached? |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let places = Place::all();
    for row in &rows {
        print_times(row, &timed(&places, row));
    }

    let (mut callgrind, memory) = match exact::programs() {
        Ok(programs) => (
            Callgrind::find(&programs)
                .map_err(|missing| eprintln!("no instructions: {missing}"))
                .ok(),
            exact::memory(&programs, &rows)
                .map_err(|missing| eprintln!("no allocations: {missing}"))
                .unwrap_or_default(),
        ),
        Err(missing) => {
            eprintln!("no exact counts: {missing}");
            return;
        }
    };
    if let Some(why) = callgrind
        .as_ref()
        .and_then(|callgrind| callgrind.without_locked.as_ref())
    {
        eprintln!("{why}");
    }
    println!();
    println!(
        "A unit on `current_thread`; allocations and bytes with the set-up shared out, kept = bytes still held when the children have ended and nobody has polled the group since."
    );
    println!();
    println!(
        "| row | contender | instructions | × bare | locked | allocations | bytes | kept | goal | reached? |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for row in &rows {
        print_counts(row, callgrind.as_mut(), &memory);
    }
}
