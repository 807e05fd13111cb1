//! Runs one contender of one row in a process of its own: `units <row> <contender> <n>` once, so that callgrind has something
//! small to count; with a number of `<repeats>` behind it, once more for each after that, and says how many nanoseconds of
//! processor time a unit of these took.

use std::process::ExitCode;
use std::time::Duration;

use ringfence_benches::measure::Place;
use ringfence_benches::rows;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let parsed = match args.as_slice() {
        [row, contender, n, repeats @ ..] if repeats.len() < 2 => {
            let repeats = repeats
                .first()
                .map_or(Some(0), |repeats| repeats.parse().ok());
            rows::row(row)
                .and_then(|row| Some((row, row.contender(contender)?, n.parse().ok()?, repeats?)))
        }
        _ => None,
    };
    let Some((row, contender, n, repeats)) = parsed else {
        eprintln!("usage: units <row> <contender> <n> [repeats]");
        for row in rows::ALL {
            let names: Vec<&str> = row.contenders.iter().map(|c| c.name).collect();
            eprintln!("  {}: {}", row.name, names.join(" | "));
        }
        return ExitCode::FAILURE;
    };
    let (place, n) = (Place::current_thread(), (row.round)(n));
    let _warm = place.once(row, contender, n);
    let taken: Duration = (0..repeats)
        .map(|_| place.once(row, contender, n).cpu)
        .sum();
    if repeats > 0 {
        println!("{}", taken.as_nanos() as f64 / (repeats * n) as f64);
    }
    ExitCode::SUCCESS
}
