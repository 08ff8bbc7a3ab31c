//! What a task is asked to do: work, pause, or leave.
//!
//! One channel speaks for the whole component (pause and resume), one for the task (stay or leave). A task looks at them
//! between batches, so that pausing, moving and stopping happen at a commit boundary.

use tokio::sync::watch;

/// What the component as a whole is asked to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Mode {
    pub(crate) paused: bool,
    /// Grows with each `resume`, which is also how a failed task is told to try again.
    pub(crate) resumes: u64,
    /// Grows when tasks should look at the component's pending faults.
    pub(crate) wakes: u64,
}

/// Whether a task should stay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Leave {
    #[default]
    Stay,
    /// Finish what is on its way, then end.
    Boundary,
    /// The same, and complete what was written: nothing more will come.
    Finish,
    /// The task belongs to somebody else already: end at once.
    Now,
}

/// What a task is asked to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    Work,
    /// Finish what is on its way, and wait.
    Pause,
    /// Finish what is on its way, and end; `finish`: complete what was written.
    Leave {
        finish: bool,
    },
    /// End at once.
    Drop,
}

/// A task's ears.
#[derive(Debug, Clone)]
pub(crate) struct Control {
    mode: watch::Receiver<Mode>,
    leave: watch::Receiver<Leave>,
}

impl Control {
    pub(crate) fn new(mode: watch::Receiver<Mode>, leave: watch::Receiver<Leave>) -> Self {
        Self { mode, leave }
    }

    pub(crate) fn leave(&self) -> Leave {
        // An instance that is gone cannot look after its tasks any more.
        if self.leave.has_changed().is_err() && *self.leave.borrow() == Leave::Stay {
            return Leave::Now;
        }
        *self.leave.borrow()
    }

    /// What to do now. Leaving goes before a pause.
    pub(crate) fn asked(&self) -> Asked {
        match self.leave() {
            Leave::Now => Asked::Drop,
            Leave::Boundary => Asked::Leave { finish: false },
            Leave::Finish => Asked::Leave { finish: true },
            Leave::Stay if self.paused() => Asked::Pause,
            Leave::Stay => Asked::Work,
        }
    }

    pub(crate) fn leaving(&self) -> bool {
        self.leave() != Leave::Stay
    }

    pub(crate) fn paused(&self) -> bool {
        self.mode.borrow().paused
    }

    pub(crate) fn resumes(&self) -> u64 {
        self.mode.borrow().resumes
    }

    /// Waits until something is asked that was not asked at the last call. Cancel safe.
    pub(crate) async fn changed(&mut self) {
        tokio::select! {
            changed = self.leave.changed() => if changed.is_err() && !self.leaving() {
                std::future::pending::<()>().await;
            },
            changed = self.mode.changed() => if changed.is_err() {
                std::future::pending::<()>().await;
            },
        }
    }

    /// Waits until the task should leave. Cancel safe.
    pub(crate) async fn left(&mut self) {
        while !self.leaving() {
            self.changed().await;
        }
    }
}
