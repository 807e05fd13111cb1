//! The goals, beside what the tables of the page say.

use std::collections::HashMap;
use std::fmt::Write as _;

use crate::rows;

/// Where the goals begin.
const MARK: &str = "<!-- measured: goals -->";

/// What a table of the page has on a contender: time ct, time mt, instructions.
type Measured = [Option<f64>; 3];

/// The tables of a page, by row and contender.
fn measured(page: &str) -> HashMap<(&str, &str), Measured> {
    let figure = |cell: &str| cell.split_whitespace().next()?.parse().ok();
    let line = |line| {
        let cells: Vec<&str> = str::split(line, '|').map(str::trim).collect();
        let [_, row, who, ct, mt, instructions, ..] = cells[..] else {
            return None;
        };
        Some(((row, who), [ct, mt, instructions].map(figure)))
    };
    let tables = page.split(MARK).next().unwrap_or(page); // the goals themselves are no measure
    tables.lines().filter_map(line).collect()
}

/// Each goal in a line: what the tables of the page give for it, in bold where it is reached.
#[must_use]
pub fn table(page: &str) -> String {
    let measured = measured(page);
    let mut text =
        "\n| row | who | beside | time ct | time mt | instructions |\n|---|---|---|---|---|---|"
            .to_owned();
    for row in rows::ALL {
        for goal in row.goals {
            let [Some(own), Some(base)] =
                [goal.who, goal.against].map(|who| measured.get(&(row.name, who)))
            else {
                continue;
            };
            let _ = write!(text, "\n| {} | {} | {} |", row.name, goal.who, goal.against);
            let limits = [goal.ct, goal.mt, goal.instructions];
            for (limit, ratio) in limits.into_iter().zip(own.iter().zip(base)) {
                let ratio = ratio.0.zip(*ratio.1).map(|(own, base)| own / base);
                let _ = match (ratio, limit) {
                    (None, _) => write!(text, " – |"),
                    (Some(ratio), None) => write!(text, " {ratio:.2} |"),
                    (Some(ratio), Some(most)) if ratio <= most => {
                        write!(text, " **{ratio:.2} ≤ {most}** |")
                    }
                    (Some(ratio), Some(most)) => write!(text, " {ratio:.2} > {most} |"),
                };
            }
        }
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::table;

    #[test]
    fn a_goal_stands_beside_the_ratio_of_the_two_lines() {
        let page = "| tree | spawn both + handles | 1.00 (1.00–1.00) | 1.00 (1.00–1.00) | 4000 | 4.00 | 320 |\n\
                    | tree | ringfence | 2.50 (2.00–3.00) | 0.75 (0.50–1.00) | 9000 | 5.50 | 1450 |\n";
        let table = table(&format!("{page}{}\n{}", super::MARK, table(page)));
        let line = "| tree | ringfence | spawn both + handles | 2.50 > 1 | **0.75 ≤ 1** | 2.25 |";
        assert!(table.lines().any(|found| found == line), "{table}");
        assert!(!table.contains("JoinSet"), "it was not measured: {table}");
    }
}
