//! Where do we stand? Every row beside its peers, with the goals, as two tables in markdown: `report [row…]`.
//!
//! Contenders take turns, each round in another order; a ratio is taken within its round, and the median of the ratios is what
//! counts (in brackets: the middle half of them). `ct` is told in processor time, which is the time on the wall if nobody
//! else is on the machine, and stands still while others are. Several threads wait for one another, so that `mt` and
//! `task` are told in time on the wall, with the processor time in a column of its own.

use std::collections::HashMap;

use ringfence_benches::exact::{self, Callgrind, Count, Memory};
use ringfence_benches::measure::Place;
use ringfence_benches::timing::{PLACES, Spread, Timed, ratios, spread, timed};
use ringfence_benches::{Row, rows};

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
