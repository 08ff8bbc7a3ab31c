//! The two sides of a join.

/// One of each for the left side (0) and the right one (1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Two<T> {
    pub(crate) left: T,
    pub(crate) right: T,
}

impl<T> Two<T> {
    /// That of a side.
    pub(crate) fn of(&self, side: usize) -> &T {
        if side == 0 { &self.left } else { &self.right }
    }

    /// That of a side.
    pub(crate) fn of_mut(&mut self, side: usize) -> &mut T {
        if side == 0 { &mut self.left } else { &mut self.right }
    }

    /// The same done to both.
    pub(crate) fn map<U>(&self, work: impl Fn(&T) -> U) -> Two<U> {
        Two { left: work(&self.left), right: work(&self.right) }
    }

    /// The same tried with both.
    pub(crate) fn try_map<U, E>(&self, work: impl Fn(&T) -> Result<U, E>) -> Result<Two<U>, E> {
        Ok(Two { left: work(&self.left)?, right: work(&self.right)? })
    }
}

/// The other side.
pub(crate) fn other(side: usize) -> usize {
    1 - side.min(1)
}
