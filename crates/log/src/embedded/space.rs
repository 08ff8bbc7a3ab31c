//! How much room there is, and who may have it.

use crate::{AbortReason, Class};

/// Who may write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Room {
    /// Everybody.
    Plenty,
    /// Only what is on its way through: the rest is set aside for it.
    Reserve(String),
    /// Nobody.
    None,
}

impl Room {
    /// Why a commit of this class may not be written now, if it may not.
    pub(super) fn refuses(&self, class: Class) -> Option<AbortReason> {
        match self {
            Self::Reserve(why) if class == Class::Intake => Some(AbortReason::DiskFull(why.clone())),
            _ => None,
        }
    }
}
