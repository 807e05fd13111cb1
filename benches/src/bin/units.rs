//! Runs one contender of one row once, so that callgrind has something small to count: `units <row> <contender> <n>`.

use std::process::ExitCode;

use ringfence_benches::measure::Place;
use ringfence_benches::rows;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let parsed = match args.as_slice() {
        [row, contender, n] => {
            rows::row(row).and_then(|row| Some((row, row.contender(contender)?, n.parse().ok()?)))
        }
        _ => None,
    };
    let Some((row, contender, n)) = parsed else {
        eprintln!("usage: units <row> <contender> <n>");
        for row in rows::ALL {
            let names: Vec<&str> = row.contenders.iter().map(|c| c.name).collect();
            eprintln!("  {}: {}", row.name, names.join(" | "));
        }
        return ExitCode::FAILURE;
    };
    Place::current_thread().once(row, contender, (row.round)(n));
    ExitCode::SUCCESS
}
