//! What a file sink commits with the positions of its inputs.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::event::Name;
use crate::service::ConnectError;
use crate::service::log::Position;

/// The version of the state's form.
const VERSION: u32 = 1;

/// The files of one task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    #[serde(rename = "v")]
    version: u32,
    #[serde(rename = "t")]
    pub(crate) topics: Vec<TopicState>,
}

/// The files of one topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TopicState {
    #[serde(rename = "n")]
    pub(crate) topic: Name,
    /// The sequence of the file that is written now or next.
    #[serde(rename = "s")]
    pub(crate) sequence: u64,
    /// Its committed length; 0: it need not exist.
    #[serde(rename = "l")]
    pub(crate) length: u64,
    /// Files that were closed with this commit: sequence and length.
    #[serde(rename = "c", default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) closed: Vec<(u64, u64)>,
}

impl State {
    pub(crate) fn new(topics: Vec<TopicState>) -> Self {
        Self { version: VERSION, topics }
    }

    pub(crate) fn decode(bytes: Option<&[u8]>) -> Result<Option<Self>, ConnectError> {
        let Some(bytes) = bytes else { return Ok(None) };
        let state: Self = serde_json::from_slice(bytes)
            .map_err(|e| ConnectError::permanent(format!("the committed state is not one of a file sink: {e}")))?;
        if state.version == VERSION {
            return Ok(Some(state));
        }
        Err(ConnectError::permanent(format!(
            "the committed state was written by a newer version of millstream (form {}, this one knows {VERSION})",
            state.version
        )))
    }

    pub(crate) fn encode(&self) -> Result<Bytes, ConnectError> {
        let bytes = serde_json::to_vec(self)
            .map_err(|e| ConnectError::permanent(format!("the sink's state cannot be written: {e}")))?;
        if bytes.len() > Position::OPAQUE_BYTES_MAX {
            return Err(ConnectError::permanent(format!(
                "the sink reads too many topics ({}) to keep its state in a commit; split it into several sinks",
                self.topics.len()
            )));
        }
        Ok(Bytes::from(bytes))
    }
}
