//! Which calls fail, and how.

use std::collections::BTreeMap;
use std::io;

/// A kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "they are named after the calls")]
pub enum Op {
    Open,
    Read,
    Write,
    Sync,
    SetLen,
    Stat,
    Rename,
    Remove,
    CreateDir,
    List,
    SyncDir,
    Lock,
    FreeSpace,
}

impl Op {
    /// All kinds.
    pub const ALL: [Self; 13] = [
        Self::Open,
        Self::Read,
        Self::Write,
        Self::Sync,
        Self::SetLen,
        Self::Stat,
        Self::Rename,
        Self::Remove,
        Self::CreateDir,
        Self::List,
        Self::SyncDir,
        Self::Lock,
        Self::FreeSpace,
    ];
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// EIO: nothing happens.
    Io,
    /// ENOSPC: nothing happens.
    NoSpace,
    /// A write takes half of the bytes and says so; other calls are carried out.
    Part,
    /// A sync fails, and what it should have made durable counts as durable from then on although it is not.
    LostSync,
}

/// One planned fault.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// The kind of call.
    pub op: Op,
    /// How many calls of this kind from now on go well before one fails.
    pub after: u64,
    /// What goes wrong.
    pub kind: FaultKind,
    /// Whether all later calls of this kind fail as well.
    pub for_good: bool,
}

/// What is to happen to a call.
#[derive(Debug, Clone, Copy)]
pub(super) enum Verdict {
    Carry,
    Part,
    Refuse(FaultKind),
    LoseAndRefuse(u64),
    PowerOff,
}

impl Verdict {
    pub(super) fn refuse(self) -> io::Result<()> {
        match self {
            Self::Refuse(FaultKind::NoSpace) => Err(io::ErrorKind::StorageFull.into()),
            Self::Refuse(_) => Err(io::Error::other("input/output error")),
            _ => Ok(()),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Faults {
    calls: BTreeMap<Op, u64>,
    planned: Vec<Planned>,
    power: Option<u64>,
    struck: bool,
}

#[derive(Debug)]
struct Planned {
    fault: Fault,
    /// The number of the first call that fails.
    first: u64,
}

impl Faults {
    pub(super) fn add(&mut self, fault: Fault) {
        let first = self.calls(fault.op) + fault.after;
        self.planned.push(Planned { fault, first });
    }

    pub(super) fn clear(&mut self) {
        self.planned.clear();
        self.power = None;
    }

    pub(super) fn struck(&self) -> bool {
        self.struck
    }

    pub(super) fn calls(&self, op: Op) -> u64 {
        self.calls.get(&op).copied().unwrap_or(0)
    }

    pub(super) fn power_off_after(&mut self, calls: u64) {
        self.power = Some(calls);
    }

    pub(super) fn judge(&mut self, op: Op) -> Verdict {
        let count = self.calls.entry(op).or_default();
        let number = *count;
        *count += 1;
        if let Some(left) = &mut self.power {
            if *left == 0 {
                return Verdict::PowerOff;
            }
            *left -= 1;
        }
        let hit = |p: &&Planned| p.fault.op == op && (number == p.first || p.fault.for_good && number > p.first);
        let Some(planned) = self.planned.iter().find(hit) else { return Verdict::Carry };
        self.struck = true;
        match planned.fault.kind {
            FaultKind::Part => Verdict::Part,
            FaultKind::LostSync => Verdict::LoseAndRefuse(number),
            kind => Verdict::Refuse(kind),
        }
    }
}
