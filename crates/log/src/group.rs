//! Which instance owns which task, within one process: the part behind [`crate::Log::join`] and
//! [`crate::Log::restart`] that the memory log and the embedded log share.
//!
//! Invariants: a task has at most one owner; between living owners it moves by revoke and release; every assignment
//! and every restart has an epoch that no assignment had before; shares differ by at most one task when settled.
//!
//! A log that answers a position for a new owner must first have settled what the old owner had on its way.

mod balance;
mod state;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use millstream_event::Name;
use parking_lot::Mutex;

use self::balance::MemberNo;
use self::state::{Group, Notice};
use crate::{Change, Epoch, Membership, Task, TaskId};

/// All groups of a log. Cheap to clone: clones share.
#[derive(Debug, Clone)]
pub struct Groups(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    epoch_last: u64,
    member_last: MemberNo,
    groups: BTreeMap<Name, Group>,
    /// Members that were replaced and must hear of it.
    lost: BTreeMap<MemberNo, Vec<TaskId>>,
}

impl Groups {
    /// No groups; all epochs will be greater than `last`, the greatest that the log ever gave out.
    pub fn new(last: Epoch) -> Self {
        let inner = Inner { epoch_last: last.0, member_last: 0, groups: BTreeMap::new(), lost: BTreeMap::new() };
        Self(Arc::new(Mutex::new(inner)))
    }

    /// An instance joins a service that has `tasks` tasks. One with the same number is replaced: its tasks are lost.
    pub fn join(&self, service: Name, instance: u32, tasks: u32) -> Box<dyn Membership> {
        let mut guard = self.0.lock();
        let inner = &mut *guard;
        inner.member_last += 1;
        let no = inner.member_last;
        let mut epochs = counter(&mut inner.epoch_last);
        let group = inner.groups.entry(service.clone()).or_default();
        if let Some((before, lost)) = group.join(no, instance, tasks, &mut epochs) {
            let lost = lost.into_iter().map(|t| TaskId::new(service.clone(), t)).collect();
            inner.lost.insert(before, lost);
        }
        Box::new(Member { groups: self.clone(), service, no })
    }

    /// A new epoch for the task's owner, or `None` where the task is not this epoch's any more.
    pub fn restart(&self, task: &Task) -> Option<Task> {
        let mut guard = self.0.lock();
        let inner = &mut *guard;
        let mut epochs = counter(&mut inner.epoch_last);
        let group = inner.groups.get_mut(&task.id.service)?;
        let epoch = group.renew(task.id.partition.0, task.epoch, &mut epochs)?;
        Some(Task { id: task.id.clone(), epoch })
    }

    /// Whether a commit of this task and epoch may go on; where not, it is fenced.
    pub fn is_current(&self, task: &TaskId, epoch: Epoch) -> bool {
        let inner = self.0.lock();
        inner.groups.get(&task.service).and_then(|g| g.epoch(task.partition.0)) == Some(epoch)
    }

    /// The greatest epoch given out so far.
    pub fn epoch_last(&self) -> Epoch {
        Epoch(self.0.lock().epoch_last)
    }
}

fn counter(last: &mut u64) -> impl FnMut() -> Epoch {
    || {
        *last += 1;
        Epoch(*last)
    }
}

struct Member {
    groups: Groups,
    service: Name,
    no: MemberNo,
}

impl Member {
    fn task(&self, no: u32) -> TaskId {
        TaskId::new(self.service.clone(), no)
    }

    /// The next change, or where to wait for one (`None`: there will be none any more).
    fn poll(&self) -> Result<Change, Option<Arc<tokio::sync::Notify>>> {
        let mut guard = self.groups.0.lock();
        let inner = &mut *guard;
        if let Some(lost) = inner.lost.get_mut(&self.no).filter(|lost| !lost.is_empty()) {
            return Ok(Change::Lost(std::mem::take(lost)));
        }
        let Some(group) = inner.groups.get_mut(&self.service) else { return Err(None) };
        match group.notice(self.no) {
            Some(Notice::Assigned(tasks)) => {
                Ok(Change::Assigned(tasks.into_iter().map(|(t, epoch)| Task { id: self.task(t), epoch }).collect()))
            }
            Some(Notice::Revoke(tasks)) => Ok(Change::Revoke(tasks.into_iter().map(|t| self.task(t)).collect())),
            None => Err(group.wake(self.no)),
        }
    }
}

impl Membership for Member {
    fn next(&mut self) -> BoxFuture<'_, Change> {
        Box::pin(async move {
            loop {
                match self.poll() {
                    Ok(change) => return change,
                    Err(Some(wake)) => wake.notified().await,
                    Err(None) => std::future::pending().await,
                }
            }
        })
    }

    fn release(&mut self, tasks: &[TaskId]) {
        let mine = tasks.iter().filter(|task| task.service == self.service);
        let numbers: Vec<u32> = mine.map(|task| task.partition.0).collect();
        let mut guard = self.groups.0.lock();
        let inner = &mut *guard;
        let mut epochs = counter(&mut inner.epoch_last);
        if let Some(group) = inner.groups.get_mut(&self.service) {
            group.release(self.no, &numbers, &mut epochs);
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut guard = self.groups.0.lock();
        let inner = &mut *guard;
        inner.lost.remove(&self.no);
        let mut epochs = counter(&mut inner.epoch_last);
        if let Some(group) = inner.groups.get_mut(&self.service) {
            group.leave(self.no, &mut epochs);
            if group.is_empty() {
                inner.groups.remove(&self.service);
            }
        }
    }
}

#[cfg(test)]
mod tests;
