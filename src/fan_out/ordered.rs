//! Results that come in any order, put into that of the input.
//!
//! D1. The window begins with the first result that is missing. D2. It is as long as the span from there to the latest
//! result, so it is short while nobody is much slower than the others.

use std::collections::VecDeque;

#[derive(Debug)]
pub(crate) struct Ordered<R> {
    /// The index that comes out next.
    next: usize,
    window: VecDeque<Option<R>>,
}

impl<R> Default for Ordered<R> {
    fn default() -> Self {
        Self::new()
    }
}

impl<R> Ordered<R> {
    pub(crate) const fn new() -> Self {
        Self {
            next: 0,
            window: VecDeque::new(),
        }
    }

    /// Takes the result of one index, and gives `out` all those whose turn has come.
    pub(crate) fn put(&mut self, index: usize, result: R, mut out: impl FnMut(R)) {
        let place = index - self.next;
        if place > 0 {
            return self.keep(place, result);
        }
        self.next += 1;
        out(result);
        // The place of the one that was missing, and then those that waited for it.
        self.window.pop_front();
        while let Some(result) = self.window.front_mut().and_then(Option::take) {
            self.next += 1;
            out(result);
            self.window.pop_front();
        }
    }

    fn keep(&mut self, place: usize, result: R) {
        if let Some(slot) = self.window.get_mut(place) {
            *slot = Some(result);
            return;
        }
        while self.window.len() < place {
            self.window.push_back(None);
        }
        self.window.push_back(Some(result));
    }

    /// Takes what waits for its turn.
    pub(crate) fn take_rest(&mut self) -> impl Iterator<Item = (usize, R)> + use<R> {
        let next = self.next;
        let rest = std::mem::take(&mut self.window).into_iter().enumerate();
        rest.filter_map(move |(place, result)| Some((next + place, result?)))
    }
}

impl<R> IntoIterator for Ordered<R> {
    type Item = (usize, R);
    type IntoIter = std::vec::IntoIter<(usize, R)>;

    fn into_iter(mut self) -> Self::IntoIter {
        self.take_rest().collect::<Vec<_>>().into_iter()
    }
}

#[cfg(all(test, not(any(ringfence_loom, ringfence_shuttle))))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_order_in_is_the_input_order_out(order in Just((0..60_usize).collect::<Vec<_>>()).prop_shuffle()) {
            let (mut ordered, mut out) = (Ordered::new(), Vec::new());
            let mut put = std::collections::BTreeSet::new();
            for index in order {
                put.insert(index);
                ordered.put(index, index, |result| out.push(result));
                let prefix = (0..60).take_while(|i| put.contains(i)).count();
                prop_assert_eq!(out.len(), prefix);
                let span = put.last().map_or(0, |last| last + 1 - prefix.min(last + 1));
                prop_assert!(ordered.window.len() <= span);
            }
            prop_assert_eq!(out, (0..60).collect::<Vec<_>>());
        }
    }
}
