//! How much room there is, and who may have it.

use super::options::Options;
use crate::{AbortReason, Class};

/// The reserve is at most one part in this many of what the log may use.
const RESERVE_PART: u64 = 8;

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

/// How much journal and settled files may have together. What settling a segment adds before the segment is given back is
/// set aside, so that the journal alone never uses it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    max: Option<u64>,
    settling: u64,
}

impl Budget {
    pub(super) fn of(options: &Options) -> Self {
        Self { max: options.max_bytes, settling: options.segment_len() }
    }

    /// How large the reserve may be.
    pub(super) fn reserve(self, wanted: u64) -> u64 {
        wanted.min(self.max.map_or(u64::MAX, |max| max / RESERVE_PART))
    }

    /// Whether the journal may grow by so much where `used` bytes are there; else why not.
    pub(super) fn allows(self, used: u64, growth: u64) -> Result<(), String> {
        match self.max {
            Some(max) if growth > 0 && used + growth > max.saturating_sub(self.settling) => {
                Err(format!("the log may use {max} bytes"))
            }
            _ => Ok(()),
        }
    }
}
