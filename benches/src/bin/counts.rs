//! Instructions and locked operations a unit on `current_thread`: `counts [row…]`.

use std::process::ExitCode;

use ringfence_benches::exact::{Callgrind, Missing, programs};
use ringfence_benches::rows;

fn table(wanted: &[String]) -> Result<(), Missing> {
    let mut callgrind = Callgrind::find(&programs()?)?;
    if let Some(why) = &callgrind.without_locked {
        eprintln!("{why}");
    }
    println!("| row | contender | instructions a unit | locked a unit |");
    println!("|---|---|---|---|");
    for row in rows::ALL {
        if !wanted.is_empty() && !wanted.iter().any(|name| name == row.name) {
            continue;
        }
        for contender in row.contenders {
            let count = callgrind.count(row, contender)?;
            let locked = count
                .locked
                .map_or("–".to_owned(), |locked| format!("{locked:.1}"));
            println!(
                "| {} | {} | {:.0} | {locked} |",
                row.name, contender.name, count.instructions
            );
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    match table(&wanted) {
        Ok(()) => ExitCode::SUCCESS,
        Err(missing) => {
            eprintln!("{missing}");
            ExitCode::FAILURE
        }
    }
}
