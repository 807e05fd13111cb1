//! What came out, as a table with bars, and as a picture.

use std::fmt::Write as _;
use std::time::Duration;

use crate::client::Way;
use crate::server::Story;

/// The steps in which time is shown.
pub(crate) const TENTHS: u32 = 20;

/// What became of the calls of one way.
#[derive(Debug)]
pub(crate) struct Line {
    story: Story,
    way: Way,
    good: u64,
    all: u64,
    /// Good and all calls by when they began.
    steps: [(u32, u32); TENTHS as usize],
    times: Vec<Duration>,
    pub(crate) sent: u64,
    pub(crate) elapsed: Duration,
}

impl Line {
    pub(crate) fn new(story: Story, way: Way) -> Self {
        Self {
            story,
            way,
            good: 0,
            all: 0,
            steps: [(0, 0); TENTHS as usize],
            times: Vec::new(),
            sent: 0,
            elapsed: Duration::ZERO,
        }
    }

    pub(crate) fn add(&mut self, step: u32, is_good: bool, took: Duration) {
        self.all += 1;
        self.good += u64::from(is_good);
        let at = &mut self.steps[step as usize];
        *at = (at.0 + u32::from(is_good), at.1 + 1);
        let place = self.times.partition_point(|other| *other <= took);
        self.times.insert(place, took);
    }

    fn success(&self) -> f64 {
        self.good as f64 / self.all.max(1) as f64
    }

    /// Requests that the server saw for each call.
    fn amplification(&self) -> f64 {
        self.sent as f64 / self.all.max(1) as f64
    }

    fn percentile(&self, share: f64) -> f64 {
        let last = self.times.len().saturating_sub(1);
        let place = (last as f64 * share).round() as usize;
        self.times
            .get(place)
            .map_or(0.0, |time| time.as_secs_f64() * 1e3)
    }

    /// The share of good calls over time, a character a step.
    fn course(&self) -> String {
        const LEVELS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        let level = |(good, all): &(u32, u32)| (good * 8).div_ceil((*all).max(1)) as usize;
        self.steps.iter().map(|step| LEVELS[level(step)]).collect()
    }
}

/// The table for the terminal.
pub(crate) fn table(lines: &[Line]) -> String {
    let mut text = String::from(
        "\nstory      way               good calls  over time              requests a call   p50 ms   p99 ms\n",
    );
    let mut before = None;
    for line in lines {
        if before.is_some_and(|story| story != line.story) {
            text.push('\n');
        }
        before = Some(line.story);
        let (story, way, course) = (line.story, line.way, line.course());
        let (good, sent) = (line.success() * 100.0, line.amplification());
        let (p50, p99) = (line.percentile(0.5), line.percentile(0.99));
        // Writing to a string does not fail.
        writeln!(
            text,
            "{story:<10} {way:<17} {good:>8.1} %  |{course}|  {sent:>10.2}      {p50:>8.0} {p99:>8.0}"
        )
        .unwrap_or_default();
    }
    text
}

const WIDTH: f64 = 860.0;
const ROW: f64 = 34.0;
const TOP: f64 = 56.0;

/// The same as a picture, one group of bars for each measure.
pub(crate) fn svg(lines: &[Line]) -> String {
    type Measure = (&'static str, fn(&Line) -> f64, fn(f64) -> String);
    let measures: [Measure; 3] = [
        (
            "good calls",
            |line| line.success() * 100.0,
            |v| format!("{v:.1} %"),
        ),
        ("requests a call", Line::amplification, |v| {
            format!("{v:.2}")
        }),
        (
            "p99",
            |line| line.percentile(0.99),
            |v| format!("{v:.0} ms"),
        ),
    ];
    let height = TOP + ROW * lines.len() as f64 + 24.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n"
    );
    let mut put = |piece: String| svg.push_str(&piece);
    for (column, (name, value, shown)) in measures.into_iter().enumerate() {
        let x = 220.0 + column as f64 * 215.0;
        put(format!(
            "<text x=\"{x}\" y=\"30\" font-weight=\"bold\">{name}</text>\n"
        ));
        let most = lines.iter().map(value).fold(f64::MIN_POSITIVE, f64::max);
        for (row, line) in lines.iter().enumerate() {
            let y = TOP + ROW * row as f64;
            let (width, colour) = (130.0 * value(line) / most, colour(line.way));
            let (text_x, text_y, text) = (x + width + 6.0, y + 14.0, shown(value(line)));
            put(format!(
                "<rect x=\"{x}\" y=\"{y}\" width=\"{width:.1}\" height=\"18\" fill=\"{colour}\"/>\n\
                 <text x=\"{text_x:.1}\" y=\"{text_y}\">{text}</text>\n"
            ));
        }
    }
    for (row, line) in lines.iter().enumerate() {
        let y = TOP + ROW * row as f64 + 14.0;
        put(format!(
            "<text x=\"16\" y=\"{y}\">{}: {}</text>\n",
            line.story, line.way
        ));
    }
    svg.push_str("</svg>\n");
    svg
}

fn colour(way: Way) -> &'static str {
    match way {
        Way::Once => "#9aa5b1",
        Way::Naive => "#d64545",
        Way::Polite => "#f0b429",
        Way::Budget => "#3ebd93",
        Way::Hedged => "#2186eb",
    }
}
