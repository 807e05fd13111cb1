//! A snapshot as text for people, as JSON, and as a Mermaid flowchart.

use std::fmt::{self, Write};

use super::{GroupState, GroupView, Snapshot, TaskState, TaskView, WaitsFor};
use crate::observe::TaskId;
use crate::sorted_map::SortedMap;

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Cancelling => "cancelling",
            Self::Forced => "forced",
        })
    }
}

impl fmt::Display for GroupState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Closing => "closing",
        })
    }
}

/// `group 3 `server/conn`: open, 2 children (1 in the background), body waits for task 3.1`
impl fmt::Display for GroupView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "group {}", self.id)?;
        if let Some(path) = &self.path {
            write!(f, " `{path}`")?;
        }
        write!(f, ": {}", self.state)?;
        if let Some(reason) = &self.reason {
            write!(f, ", cancelled {reason}")?;
        }
        let noun = if self.children == 1 {
            "child"
        } else {
            "children"
        };
        write!(f, ", {} {noun}", self.children)?;
        if self.background > 0 {
            write!(f, " ({} in the background)", self.background)?;
        }
        if let Some(remaining) = self.remaining {
            write!(f, ", {remaining:.1?} left")?;
        }
        match self.body.as_ref().map(|body| body.waits_for) {
            Some(Some(what)) => write!(f, ", body waits for {what}"),
            Some(None) | None => Ok(()),
        }
    }
}

/// `task 3.1 `accept`, spawned at src/main.rs:10:5, cancelling, 3.2s, 14 polls, waits for an item of a queue`
impl fmt::Display for TaskView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task {}", self.id)?;
        if let Some(name) = &self.name {
            write!(f, " `{name}`")?;
        }
        if let Some(place) = self.spawned_at {
            write!(f, ", spawned at {place}")?;
        }
        if self.state != TaskState::Running {
            write!(f, ", {}", self.state)?;
        }
        if let Some(age) = self.age {
            write!(f, ", {age:.1?}")?;
        }
        if let Some(polls) = self.polls {
            let noun = if polls == 1 { "poll" } else { "polls" };
            write!(f, ", {polls} {noun}")?;
        }
        match self.waits_for {
            Some(what) => write!(f, ", waits for {what}"),
            None => Ok(()),
        }
    }
}

/// A tree a group that is in no other one; a line a group, and a line a task. Circles of tasks are listed after it.
impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut inside = Inside::new();
        let mut roots = Vec::new();
        for group in &self.groups {
            match self.around(group) {
                None => roots.push(group),
                Some((outer, task)) => {
                    let place = task.map_or(body(outer), |task| task.id);
                    inside.get_or_default(place).push(group);
                }
            }
        }
        for root in roots {
            writeln!(f, "{root}")?;
            branches(f, &inside, root)?;
        }
        for cycle in self.cycles() {
            f.write_str("in a circle:")?;
            for task in cycle.iter().chain(cycle.first()) {
                write!(f, " {task}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// The groups opened in each task; in the body of a group, or in a task that is not listed, where there is none.
type Inside<'a> = SortedMap<TaskId, Vec<&'a GroupView>>;

fn body(group: &GroupView) -> TaskId {
    TaskId {
        group: group.id,
        serial: 0,
    }
}

/// What hangs below a line of the tree.
enum Branch<'a> {
    Group(&'a GroupView),
    Task(&'a TaskView),
    Unlisted(u64),
}

/// What lies deeper is drawn no further to the right.
const DEEPEST: usize = 64;

fn below<'a>(inside: &Inside<'a>, group: &'a GroupView) -> Vec<Branch<'a>> {
    let mut below = opened(inside, body(group));
    below.extend(group.tasks.iter().map(Branch::Task));
    let unlisted = Some(group.unlisted()).filter(|n| *n > 0);
    below.extend(unlisted.map(Branch::Unlisted));
    below
}

fn opened<'a>(inside: &Inside<'a>, task: TaskId) -> Vec<Branch<'a>> {
    let groups = inside.get(task).into_iter().flatten();
    groups.map(|group| Branch::Group(group)).collect()
}

/// Draws what hangs below the line of a group. Groups may lie deeper in one another than calls can, so it does not call itself.
fn branches<'a>(
    f: &mut fmt::Formatter<'_>,
    inside: &Inside<'a>,
    root: &'a GroupView,
) -> fmt::Result {
    let mut indent = String::new();
    let mut open = vec![(below(inside, root).into_iter(), 0)];
    while let Some((rest, indented)) = open.last_mut() {
        indent.truncate(*indented);
        let Some(branch) = rest.next() else {
            open.pop();
            continue;
        };
        let (turn, line) = match rest.len() {
            0 => ("└─ ", "   "),
            _ => ("├─ ", "│  "),
        };
        write!(f, "{indent}{turn}")?;
        let deeper = match branch {
            Branch::Group(group) => {
                writeln!(f, "{group}")?;
                below(inside, group)
            }
            Branch::Task(task) => {
                writeln!(f, "{task}")?;
                opened(inside, task.id)
            }
            Branch::Unlisted(n) => {
                writeln!(f, "{n} that never had to wait, or no tasks")?;
                Vec::new()
            }
        };
        if open.len() < DEEPEST {
            indent.push_str(line);
        }
        open.push((deeper.into_iter(), indent.len()));
    }
    Ok(())
}

impl Snapshot {
    /// Writes it as JSON: an object with an array of groups, each with an array of tasks. Times are in milliseconds; what is not known
    /// is `null`.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text = String::from("{\"groups\":");
        array(&mut text, &self.groups, |text, group| {
            let opened_in = group.opened_in.map(|task| task.to_string());
            let _ = write!(text, "{{\"id\":{},\"path\":", group.id);
            string(text, group.path.as_deref());
            text.push_str(",\"opened_in\":");
            string(text, opened_in.as_deref());
            let _ = write!(text, ",\"state\":\"{}\",\"reason\":", group.state);
            string(
                text,
                group.reason.as_ref().map(ToString::to_string).as_deref(),
            );
            text.push_str(",\"remaining_ms\":");
            number(text, group.remaining.map(|left| left.as_millis()));
            text.push_str(",\"body\":");
            match &group.body {
                None => text.push_str("null"),
                Some(body) => {
                    text.push('{');
                    detail(text, body.polls, body.waits_for);
                    text.push('}');
                }
            }
            let (children, background) = (group.children, group.background);
            let _ = write!(text, ",\"children\":{children},\"background\":{background}");
            text.push_str(",\"tasks\":");
            array(text, &group.tasks, |text, task| {
                let _ = write!(text, "{{\"id\":\"{}\",\"name\":", task.id);
                string(text, task.name.as_deref());
                text.push_str(",\"spawned_at\":");
                string(text, task.spawned_at.map(ToString::to_string).as_deref());
                let _ = write!(text, ",\"state\":\"{}\",\"age_ms\":", task.state);
                number(text, task.age.map(|age| age.as_millis()));
                text.push(',');
                detail(text, task.polls, task.waits_for);
                text.push('}');
            });
            text.push('}');
        });
        text.push('}');
        text
    }

    /// Writes it as a Mermaid flowchart, from groups to their tasks, and from tasks to the groups opened in them.
    #[must_use]
    pub fn to_mermaid(&self) -> String {
        let mut text = String::from("flowchart TD\n");
        for group in &self.groups {
            let id = group.id;
            let title = group.path.as_deref().unwrap_or("group");
            let _ = write!(text, "    g{id}[\"");
            label(&mut text, title);
            let _ = writeln!(text, "<br/>{} · {} alive\"]", group.state, group.children);
            match self.around(group) {
                Some((outer, Some(task))) => {
                    let serial = task.id.serial;
                    let _ = writeln!(text, "    t{}_{serial} --> g{id}", outer.id);
                }
                Some((outer, None)) => {
                    let _ = writeln!(text, "    g{} --> g{id}", outer.id);
                }
                None => {}
            }
            for task in &group.tasks {
                let serial = task.id.serial;
                let _ = write!(text, "    g{id} --> t{id}_{serial}([\"");
                match &task.name {
                    Some(name) => label(&mut text, name),
                    None => label(&mut text, &task.id.to_string()),
                }
                if task.state != TaskState::Running {
                    let _ = write!(text, "<br/>{}", task.state);
                }
                if let Some(what) = task.waits_for {
                    let _ = write!(text, "<br/>waits for {what}");
                }
                text.push_str("\"])\n");
            }
        }
        text
    }
}

fn detail(text: &mut String, polls: Option<u64>, waits_for: Option<WaitsFor>) {
    text.push_str("\"polls\":");
    number(text, polls);
    text.push_str(",\"waits_for\":");
    string(text, waits_for.map(|what| what.to_string()).as_deref());
}

fn array<T>(text: &mut String, items: &[T], mut write: impl FnMut(&mut String, &T)) {
    text.push('[');
    for (place, item) in items.iter().enumerate() {
        if place > 0 {
            text.push(',');
        }
        write(text, item);
    }
    text.push(']');
}

fn number(text: &mut String, number: Option<impl fmt::Display>) {
    let _ = match number {
        Some(number) => write!(text, "{number}"),
        None => write!(text, "null"),
    };
}

/// RFC 8259, section 7: quotes, backslashes and control characters are escaped.
fn string(text: &mut String, string: Option<&str>) {
    let Some(string) = string else {
        return text.push_str("null");
    };
    text.push('"');
    for c in string.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            c if c < ' ' => {
                let _ = write!(text, "\\u{:04x}", u32::from(c));
            }
            c => text.push(c),
        }
    }
    text.push('"');
}

/// Inside a quoted label, Mermaid reads entities.
fn label(text: &mut String, string: &str) {
    for c in string.chars() {
        match c {
            '"' => text.push_str("#quot;"),
            '<' => text.push_str("#lt;"),
            '>' => text.push_str("#gt;"),
            '#' => text.push_str("#35;"),
            c if c < ' ' => text.push(' '),
            c => text.push(c),
        }
    }
}
