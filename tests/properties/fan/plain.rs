//! The model: what a fan-out and the limiter that it shares are to do, as plain sets and queues.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What is fixed for a run.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(super) limit: usize,
    pub(super) is_local: bool,
    /// Of the shared limiter, if there is one.
    pub(super) permits: Option<usize>,
    /// The burst of a rate of one in [`CELL`], if there is one.
    pub(super) burst: Option<u64>,
    /// For each item: its key, its weight.
    pub(super) items: Vec<(Option<u8>, u32)>,
    /// How many the input has at first.
    pub(super) fed: usize,
}

/// Milliseconds for one of the rate.
pub(super) const CELL: u64 = 10;

/// A rate: when what was granted will have been paid for, and who waits.
#[derive(Debug)]
struct Meter {
    burst: u64,
    now: u64,
    due: u64,
    queue: VecDeque<usize>,
}

impl Meter {
    fn grants(&mut self) -> bool {
        let due = self.due.max(self.now) + CELL;
        let is_granted = due <= self.now + self.burst * CELL;
        if is_granted {
            self.due = due;
        }
        is_granted
    }
}

/// Who waits for permits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Item(usize),
    /// Somebody who has nothing to do with the fan-out.
    Stranger(usize),
}

#[derive(Debug)]
struct Gate {
    limit: i64,
    out: i64,
    queue: VecDeque<(Who, i64)>,
}

impl Gate {
    fn fits(&self, weight: i64) -> bool {
        let free = self.limit - self.out;
        free >= weight || free >= self.limit
    }

    /// Takes permits, or stands in line.
    fn ask(&mut self, who: Who, weight: u32) -> bool {
        let weight = i64::from(weight);
        if weight == 0 {
            return true;
        }
        let is_granted = self.queue.is_empty() && self.fits(weight);
        if is_granted {
            self.out += weight;
        } else {
            self.queue.push_back((who, weight));
        }
        is_granted
    }

    /// Who is served now.
    fn serve(&mut self) -> Vec<Who> {
        let mut served = Vec::new();
        while let Some((who, weight)) = self.queue.front().copied() {
            if !self.fits(weight) {
                break;
            }
            self.out += weight;
            self.queue.pop_front();
            served.push(who);
        }
        served
    }
}

#[derive(Debug)]
pub(super) struct Model {
    shape: Shape,
    gate: Option<Gate>,
    meter: Option<Meter>,
    pub(super) fed: usize,
    pub(super) taken: usize,
    pub(super) running: BTreeSet<usize>,
    /// Those who have their key, and wait for the rate or for permits.
    hands: BTreeSet<usize>,
    /// The one of them that holds up the input.
    inside: Option<usize>,
    busy: BTreeMap<u8, VecDeque<usize>>,
    /// Whose key has become free, where one at a time waits for permits.
    ready: VecDeque<usize>,
    pub(super) strangers: BTreeSet<usize>,
    pub(super) ended: BTreeMap<usize, bool>,
    pub(super) cancelled: usize,
    is_stopped: bool,
    /// Something was taken, or left, that never ran.
    is_torn: bool,
    pub(super) is_over: bool,
}

impl Model {
    pub(super) fn new(shape: Shape) -> Self {
        let gate = shape.permits.map(|limit| Gate {
            limit: limit as i64,
            out: 0,
            queue: VecDeque::new(),
        });
        let meter = shape.burst.map(|burst| Meter {
            burst,
            now: 0,
            due: 0,
            queue: VecDeque::new(),
        });
        Self {
            gate,
            meter,
            fed: shape.fed.min(shape.items.len()),
            shape,
            taken: 0,
            running: BTreeSet::new(),
            hands: BTreeSet::new(),
            inside: None,
            busy: BTreeMap::new(),
            ready: VecDeque::new(),
            strangers: BTreeSet::new(),
            ended: BTreeMap::new(),
            cancelled: 0,
            is_stopped: false,
            is_torn: false,
            is_over: false,
        }
    }

    /// How many permits are out, and how many wait.
    pub(super) fn permits(&self) -> (usize, usize) {
        self.gate
            .as_ref()
            .map_or((0, 0), |gate| (gate.out as usize, gate.queue.len()))
    }

    /// How many wait for the rate.
    pub(super) fn unrated(&self) -> usize {
        self.meter.as_ref().map_or(0, |meter| meter.queue.len())
    }

    fn parked(&self) -> usize {
        self.busy.values().map(VecDeque::len).sum()
    }

    /// How many items are in its hands.
    pub(super) fn held(&self) -> usize {
        self.running.len() + self.hands.len() + self.parked() + self.ready.len()
    }

    fn weight(&self, item: usize) -> u32 {
        self.shape.items[item].1
    }

    /// An item that has its key asks for its turn at the rate, and then for its permits.
    fn ask(&mut self, item: usize) -> bool {
        if let Some(meter) = &mut self.meter {
            if !meter.queue.is_empty() || !meter.grants() {
                meter.queue.push_back(item);
                self.hands.insert(item);
                return false;
            }
        }
        self.ask_permits(item)
    }

    fn ask_permits(&mut self, item: usize) -> bool {
        let weight = self.weight(item);
        let runs = self
            .gate
            .as_mut()
            .is_none_or(|gate| gate.ask(Who::Item(item), weight));
        if runs {
            self.start(item);
        } else {
            self.hands.insert(item);
        }
        runs
    }

    fn start(&mut self, item: usize) {
        self.hands.remove(&item);
        self.running.insert(item);
        self.inside = self.inside.filter(|inside| *inside != item);
    }

    /// Time passes.
    pub(super) fn pass(&mut self, time: u64) {
        let Some(meter) = &mut self.meter else { return };
        meter.now += time;
        while let Some(meter) = &mut self.meter {
            let Some(first) = meter.queue.front().copied() else {
                break;
            };
            if !meter.grants() {
                break;
            }
            meter.queue.pop_front();
            self.ask_permits(first);
            self.go_on();
        }
    }

    /// A stranger tries to go through at the rate.
    pub(super) fn try_rate(&mut self) -> Option<bool> {
        let meter = self.meter.as_mut()?;
        Some(meter.queue.is_empty() && meter.grants())
    }

    fn serve(&mut self) {
        for who in self.gate.as_mut().map(Gate::serve).unwrap_or_default() {
            match who {
                Who::Stranger(id) => drop(self.strangers.insert(id)),
                Who::Item(item) => self.start(item),
            }
        }
    }

    fn give(&mut self, weight: u32) {
        if let Some(gate) = &mut self.gate {
            gate.out -= i64::from(weight);
        }
        self.serve();
    }

    /// Takes all that may be taken now.
    pub(super) fn go_on(&mut self) {
        while !self.is_stopped {
            let is_held_up = if self.shape.is_local {
                !self.hands.is_empty()
            } else {
                self.inside.is_some()
            };
            if is_held_up || self.running.len() + self.hands.len() >= self.shape.limit {
                break;
            }
            if let Some(item) = self.ready.pop_front() {
                self.ask(item);
                continue;
            }
            if self.parked() >= self.shape.limit || self.taken == self.fed {
                break;
            }
            let item = self.taken;
            self.taken += 1;
            if let Some(key) = self.shape.items[item].0 {
                if let Some(lane) = self.busy.get_mut(&key) {
                    lane.push_back(item);
                    continue;
                }
                self.busy.insert(key, VecDeque::new());
            }
            if !self.ask(item) {
                self.inside = Some(item);
            }
        }
        let is_through = self.is_stopped || self.taken == self.shape.items.len();
        self.is_over |= is_through && self.held() == 0;
    }

    pub(super) fn end(&mut self, item: usize, is_ok: bool) {
        self.running.remove(&item);
        self.ended.insert(item, is_ok);
        self.give(self.weight(item));
        let Some(key) = self.shape.items[item].0.filter(|_| !self.is_stopped) else {
            return self.go_on();
        };
        let next = self.busy.get_mut(&key).and_then(VecDeque::pop_front);
        match next {
            Some(next) if self.shape.is_local => self.ready.push_back(next),
            Some(next) => drop(self.ask(next)),
            None => drop(self.busy.remove(&key)),
        }
        self.go_on();
    }

    pub(super) fn feed(&mut self, n: usize) {
        self.fed = (self.fed + n).min(self.shape.items.len());
        self.go_on();
    }

    pub(super) fn set_permits(&mut self, limit: usize) {
        if let Some(gate) = &mut self.gate {
            gate.limit = limit as i64;
        }
        self.serve();
        self.go_on();
    }

    pub(super) fn stranger_comes(&mut self, id: usize, weight: u32) {
        let Some(gate) = &mut self.gate else { return };
        if gate.ask(Who::Stranger(id), weight) {
            self.strangers.insert(id);
        }
    }

    pub(super) fn stranger_goes(&mut self, id: usize, weight: u32) {
        self.strangers.remove(&id);
        self.give(weight);
        self.go_on();
    }

    /// On the signal nothing more is taken, and what waits is let go.
    pub(super) fn signal(&mut self) {
        self.is_torn |= self.held() > self.running.len() || self.taken < self.shape.items.len();
        self.is_stopped = true;
        let hands = std::mem::take(&mut self.hands);
        if let Some(gate) = &mut self.gate {
            gate.queue
                .retain(|(who, _)| !matches!(who, Who::Item(item) if hands.contains(item)));
        }
        if let Some(meter) = &mut self.meter {
            meter.queue.clear();
        }
        self.busy.clear();
        self.ready.clear();
        self.inside = None;
        self.serve();
        self.go_on();
    }

    /// Everything is dropped where it is.
    pub(super) fn cut(&mut self) {
        self.signal();
        let running = std::mem::take(&mut self.running);
        self.cancelled += running.len();
        for item in running {
            self.give(self.weight(item));
        }
        self.is_over = true;
    }

    /// Whether all items of the input have had their turn.
    pub(super) fn is_whole(&self) -> bool {
        !self.is_torn && self.cancelled == 0
    }
}
