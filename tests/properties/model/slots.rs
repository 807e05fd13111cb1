//! Slots: who has one, who waits for one, and who lends.

use std::collections::{BTreeMap, VecDeque};

use ringfence::{CancelReason, Outcome};

use super::{Checked, Doing, Fate, Kind, Model, ensure};
use crate::program::BUDGETS;
use crate::world::Id;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    Own,
    Lent(Id),
}

#[derive(Debug, Default)]
struct Lender {
    is_out: bool,
    /// What it had itself, if it ended before what it had lent came back.
    left: Option<Slot>,
}

#[derive(Debug, Default)]
struct Budget {
    free: usize,
    /// For which child a slot is waited for, and who could lend one.
    queue: VecDeque<(Id, Option<Id>)>,
    granted: BTreeMap<Id, Slot>,
    lenders: BTreeMap<Id, Lender>,
}

#[derive(Debug)]
pub(super) struct Budgets([Budget; 2]);

impl Default for Budgets {
    fn default() -> Self {
        Self(BUDGETS.map(|free| Budget {
            free,
            ..Budget::default()
        }))
    }
}

impl Budget {
    fn take(&mut self, lender: Option<Id>) -> Option<Slot> {
        let lending = lender.and_then(|id| Some((id, self.lenders.get_mut(&id)?)));
        if let Some((id, lender)) = lending.filter(|(_, lender)| !lender.is_out) {
            lender.is_out = true;
            return Some(Slot::Lent(id));
        }
        self.free = self.free.checked_sub(1)?;
        Some(Slot::Own)
    }

    fn give_back(&mut self, mut slot: Slot) {
        if let Slot::Lent(id) = slot
            && let Some(left) = self.lenders.get(&id).and_then(|lender| lender.left)
        {
            self.lenders.remove(&id);
            slot = left;
            return self.give_back(slot);
        }
        let fits = |(_, lender): &(Id, Option<Id>)| match slot {
            Slot::Own => true,
            Slot::Lent(id) => *lender == Some(id),
        };
        match (self.queue.iter().position(fits), slot) {
            (Some(place), _) => {
                let next = self.queue.remove(place);
                self.granted.extend(next.map(|(child, _)| (child, slot)));
            }
            (None, Slot::Own) => self.free += 1,
            (None, Slot::Lent(id)) => {
                if let Some(lender) = self.lenders.get_mut(&id) {
                    lender.is_out = false;
                }
            }
        }
    }
}

impl Model {
    pub(crate) fn free(&self) -> [usize; 2] {
        [self.budgets.0[0].free, self.budgets.0[1].free]
    }

    fn budget(&mut self, child: Id) -> Option<&mut Budget> {
        let budget = self.actors.get(&child)?.budget?;
        self.budgets.0.get_mut(budget)
    }

    /// The nearest child with a slot of that budget, from a member outwards.
    fn holder(&self, budget: usize, member: Id) -> Option<Id> {
        let mut member = Some(member);
        while let Some(id) = member {
            let actor = &self.actors[&id];
            if actor.kind == Kind::Child && self.budgets.0[budget].lenders.contains_key(&id) {
                return Some(id);
            }
            member = actor.group.map(|group| self.scopes[&group].opener);
        }
        None
    }

    /// Who could lend a slot to a child of that scope.
    fn lender(&self, budget: usize, scope: Id) -> Option<Id> {
        self.holder(budget, self.scopes[&scope].opener)
    }

    /// What ends the wait of `by` for a slot for a child of that group, if anything does.
    fn signal(&self, by: Id, group: Id) -> Option<CancelReason> {
        self.token(group).or_else(|| self.token(by))
    }

    /// `by` begins to wait for a slot for a child.
    pub(super) fn wait_for_slot(&mut self, by: Id, child: Id) -> Checked {
        self.actor(by)?.doing = Doing::Waiting(child);
        let state = &self.actors[&child];
        let (budget, group) = (
            state.budget.unwrap_or_default(),
            state.group.unwrap_or_default(),
        );
        if self.token(group).is_some() {
            return Ok(()); // It is refused at once.
        }
        let lender = self.lender(budget, group);
        let holder = self.holder(budget, by);
        if holder.is_some() && holder != lender {
            self.actor(child)?.is_circle = true;
            return Ok(());
        }
        let budget = &mut self.budgets.0[budget];
        match budget.take(lender) {
            Some(slot) => {
                budget.granted.insert(child, slot);
                self.actor(child)?.is_served = true;
            }
            None => budget.queue.push_back((child, lender)),
        }
        Ok(())
    }

    /// Who waits for a slot for that child.
    pub(super) fn waits_for(&self, child: Id) -> Option<Id> {
        let by = self.actors.get(&child)?.spawned_by?;
        (self.actors[&by].doing == Doing::Waiting(child)).then_some(by)
    }

    /// Whether somebody waited for a slot for that child until this moment.
    pub(super) fn waited(&mut self, child: Id) -> Result<bool, String> {
        let by = self.waits_for(child);
        if let Some(by) = by {
            self.actor(by)?.doing = Doing::Idle;
        }
        Ok(by.is_some())
    }

    /// A child that is waited for is dropped unborn. Says no if it is not waited for.
    pub(super) fn is_wait_over(&mut self, child: Id) -> Result<bool, String> {
        let Some(by) = self.waits_for(child) else {
            return Ok(false);
        };
        let state = self.actor(child)?;
        let (group, is_circle) = (state.group.unwrap_or_default(), state.is_circle);
        let signals = !state.is_served; // Where nobody waits, only the group is asked.
        let signal = signals.then(|| self.signal(by, group)).flatten();
        let is_open = self.is_open(group);
        ensure!(
            is_circle || !is_open || signal.is_some() || self.is_droppable(by),
            "{child} was dropped while {by} waited for a slot for it"
        );
        let closed = self.scope(group)?.reason.clone();
        let reason = signal.or(closed).unwrap_or(CancelReason::Closed);
        self.actor(child)?.outcome = Some(Outcome::Cancelled(reason));
        if let Some(budget) = self.budget(child) {
            budget.queue.retain(|(waits, _)| *waits != child);
            if let Some(slot) = budget.granted.remove(&child) {
                budget.give_back(slot);
            }
        }
        Ok(true)
    }

    /// A child is born: it has a slot, if it needs one.
    pub(super) fn slotted(&mut self, child: Id) -> Checked {
        let state = self.actor(child)?;
        let (group, Some(budget)) = (state.group.unwrap_or_default(), state.budget) else {
            return Ok(());
        };
        let slot = if self.waited(child)? {
            self.slots += 1;
            self.budgets.0[budget].granted.remove(&child)
        } else {
            let lender = self.lender(budget, group);
            self.budgets.0[budget].take(lender)
        };
        ensure!(slot.is_some(), "{child} was spawned without a slot");
        self.actor(child)?.slot = slot;
        Ok(())
    }

    pub(super) fn was_full(&mut self, child: Id) -> Checked {
        let state = self.actor(child)?;
        ensure!(state.fate == Fate::Unborn, "{child} cannot be refused now");
        let (group, budget) = (
            state.group.unwrap_or_default(),
            state.budget.ok_or(format!("{child} needs no slot"))?,
        );
        let lender = self.lender(budget, group);
        let slot = self.budgets.0[budget].take(lender);
        ensure!(
            slot.is_none(),
            "{child} was refused although a slot was free"
        );
        let state = self.actor(child)?;
        (state.fate, state.out) = (Fate::Refused, true);
        self.never_made(child)
    }

    pub(super) fn was_circle(&mut self, child: Id) -> Checked {
        ensure!(
            self.actor(child)?.is_circle,
            "there was no circle for {child}"
        );
        self.waited(child)?;
        let state = self.actor(child)?;
        (state.fate, state.out) = (Fate::Refused, true);
        self.never_made(child)
    }

    /// There will be no handle.
    pub(super) fn never_made(&mut self, child: Id) -> Checked {
        let state = self.actor(child)?;
        state.waiters = 0;
        if let Some(by) = state.spawned_by.and_then(|by| self.actors.get_mut(&by)) {
            by.handles.retain(|known| *known != child);
        }
        Ok(())
    }

    /// A child is polled: from now on, what is inside it can have its slot.
    pub(super) fn lend(&mut self, child: Id) {
        if self.actors[&child].slot.is_some()
            && let Some(budget) = self.budget(child)
        {
            budget.lenders.insert(child, Lender::default());
        }
    }

    /// A child is gone, and its slot comes back.
    pub(super) fn give_back(&mut self, child: Id) -> Checked {
        let Some(slot) = self.actor(child)?.slot.take() else {
            return Ok(());
        };
        let Some(budget) = self.budget(child) else {
            return Ok(());
        };
        match budget.lenders.get_mut(&child) {
            Some(lender) if lender.is_out => lender.left = Some(slot),
            _ => {
                budget.lenders.remove(&child);
                budget.give_back(slot);
            }
        }
        Ok(())
    }

    /// Checks that nobody waits for what is there, or in vain.
    pub(super) fn check_wait(&self, by: Id, child: Id) -> Checked {
        let state = &self.actors[&child];
        let (budget, group) = (
            state.budget.unwrap_or_default(),
            state.group.unwrap_or_default(),
        );
        let granted = self.budgets.0[budget].granted.get(&child);
        ensure!(
            granted.is_none(),
            "{by} has not taken the slot for {child}: {granted:?}"
        );
        let signal = self.signal(by, group);
        ensure!(
            signal.is_none() && !state.is_circle,
            "{by} still waits for a slot for {child}: {signal:?}"
        );
        Ok(())
    }
}
