//! The state of one service's group: who is there, who owns what, and what each member still has to be told.
//!
//! A task's life: free -> assigned (a new epoch) -> revoking -> released, which is free again. A task is handed from
//! one living member to another only by way of a release; a member that goes loses its tasks at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::Notify;

use super::balance::{MemberNo, TaskNo, balance};
use crate::Epoch;

/// What a member still has to be told, and what it was told. Bounded by the number of tasks.
#[derive(Debug, Default)]
pub(super) struct Member {
    /// The instance's number.
    instance: u32,
    /// Wakes the member when there is something to tell.
    pub(super) wake: Arc<Notify>,
    /// Owned and not told yet.
    to_assign: BTreeSet<TaskNo>,
    /// To be given back and not told yet.
    to_revoke: BTreeSet<TaskNo>,
}

#[derive(Debug, Clone, Copy)]
struct Owned {
    member: MemberNo,
    epoch: Epoch,
    revoking: bool,
}

/// What to tell a member.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// These are yours.
    Assigned(Vec<(TaskNo, Epoch)>),
    /// Give these back.
    Revoke(Vec<TaskNo>),
}

/// One service's group.
#[derive(Debug, Default)]
pub(super) struct Group {
    tasks: u32,
    members: BTreeMap<MemberNo, Member>,
    owned: BTreeMap<TaskNo, Owned>,
}

impl Group {
    /// A member joins; the newest knows best how many tasks there are. Returns who had the same instance number and is
    /// out now, with the tasks it had been told of.
    pub(super) fn join(
        &mut self,
        no: MemberNo,
        instance: u32,
        tasks: u32,
        epochs: &mut impl FnMut() -> Epoch,
    ) -> Option<(MemberNo, Vec<TaskNo>)> {
        let before = self.members.iter().find(|(_, m)| m.instance == instance).map(|(no, _)| *no);
        let lost = before.map(|before| (before, self.drop_member(before)));
        self.tasks = tasks;
        self.members.insert(no, Member { instance, ..Member::default() });
        self.settle(epochs);
        lost
    }

    /// A member goes; its tasks are others' at once. Returns the tasks it had been told of.
    pub(super) fn leave(&mut self, no: MemberNo, epochs: &mut impl FnMut() -> Epoch) -> Vec<TaskNo> {
        let lost = self.drop_member(no);
        self.settle(epochs);
        lost
    }

    /// A member gives tasks back.
    pub(super) fn release(&mut self, no: MemberNo, tasks: &[TaskNo], epochs: &mut impl FnMut() -> Epoch) {
        for task in tasks {
            if self.owned.get(task).is_some_and(|owned| owned.member == no && owned.revoking) {
                self.owned.remove(task);
                if let Some(member) = self.members.get_mut(&no) {
                    member.to_revoke.remove(task);
                }
            }
        }
        self.settle(epochs);
    }

    /// A new epoch for the same owner; `None` where `epoch` is not the task's any more.
    pub(super) fn renew(&mut self, task: TaskNo, epoch: Epoch, epochs: &mut impl FnMut() -> Epoch) -> Option<Epoch> {
        let owned = self.owned.get_mut(&task).filter(|owned| owned.epoch == epoch)?;
        owned.epoch = epochs();
        Some(owned.epoch)
    }

    /// The epoch that may commit for a task.
    pub(super) fn epoch(&self, task: TaskNo) -> Option<Epoch> {
        self.owned.get(&task).map(|owned| owned.epoch)
    }

    /// What a member must hear next, if anything.
    pub(super) fn notice(&mut self, no: MemberNo) -> Option<Notice> {
        let member = self.members.get_mut(&no)?;
        if !member.to_revoke.is_empty() {
            return Some(Notice::Revoke(std::mem::take(&mut member.to_revoke).into_iter().collect()));
        }
        if member.to_assign.is_empty() {
            return None;
        }
        let told = std::mem::take(&mut member.to_assign).into_iter();
        Some(Notice::Assigned(told.filter_map(|t| self.owned.get(&t).map(|owned| (t, owned.epoch))).collect()))
    }

    /// Where a member waits for its next notice; `None` when it is out.
    pub(super) fn wake(&self, no: MemberNo) -> Option<Arc<Notify>> {
        self.members.get(&no).map(|member| member.wake.clone())
    }

    /// Whether nobody is left.
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    fn drop_member(&mut self, no: MemberNo) -> Vec<TaskNo> {
        let Some(member) = self.members.remove(&no) else { return Vec::new() };
        member.wake.notify_one();
        let mut lost = Vec::new();
        self.owned.retain(|task, owned| {
            let his = owned.member == no;
            if his && !member.to_assign.contains(task) {
                lost.push(*task);
            }
            !his
        });
        lost
    }

    /// Carries out the decision: asks for what has to move and assigns what is free.
    fn settle(&mut self, epochs: &mut impl FnMut() -> Epoch) {
        let members: BTreeSet<MemberNo> = self.members.keys().copied().collect();
        // A task on its way back counts as free, so that the decision does not ask for another in its place.
        let kept = self.owned.iter().filter(|(_, owned)| !owned.revoking);
        let owners = kept.map(|(task, owned)| (*task, owned.member)).collect();
        let target = balance(self.tasks, &members, &owners);
        self.revoke(|task, owner| target.get(&task) != Some(&owner));
        for (task, no) in target {
            if self.owned.contains_key(&task) {
                continue;
            }
            if let Some(member) = self.members.get_mut(&no) {
                self.owned.insert(task, Owned { member: no, epoch: epochs(), revoking: false });
                member.to_assign.insert(task);
                member.wake.notify_one();
            }
        }
    }

    fn revoke(&mut self, moves: impl Fn(TaskNo, MemberNo) -> bool) {
        let members = &mut self.members;
        self.owned.retain(|task, owned| {
            if owned.revoking || !moves(*task, owned.member) {
                return true;
            }
            let Some(member) = members.get_mut(&owned.member) else { return false };
            // What its owner never heard of needs no giving back.
            if member.to_assign.remove(task) {
                return false;
            }
            owned.revoking = true;
            member.to_revoke.insert(*task);
            member.wake.notify_one();
            true
        });
    }
}
