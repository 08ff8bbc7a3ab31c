//! The source itself: opens a reading thread per task and passes on what it hands over.

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::Settings;
use super::position::Places;
use super::reader::{Handed, Reader};
use crate::decode::{Decode, Format, redecode};
use crate::event::{PartitionId, Schema};
use crate::service::log::Position;
use crate::service::{ConnectError, Refusal, Source, SourceRead, SourceTask};
use arrow_array::RecordBatch;

/// Reads files; see the [module](super).
pub struct FileSource {
    settings: Settings,
    schema: Schema,
    /// Decodes single lines again, for the replay of dead letters.
    again: Mutex<Decode>,
}

impl FileSource {
    /// A source of events with the columns of `schema`, the topic's.
    pub fn new(settings: Settings, schema: Schema) -> Self {
        let again = Mutex::new(Decode::ndjson(&schema, settings.unknown));
        Self { settings, schema, again }
    }
}

impl Source for FileSource {
    fn bounded(&self) -> bool {
        !self.settings.follow
    }

    fn open(
        &self,
        _task: PartitionId,
        position: Option<Position>,
    ) -> BoxFuture<'_, Result<Box<dyn SourceTask>, ConnectError>> {
        async move {
            let places = Places::decode(position.as_ref())?;
            let handed = Reader::start(self.settings.clone(), self.schema.clone(), places)?;
            Ok(Box::new(FileTask { handed }) as Box<dyn SourceTask>)
        }
        .boxed()
    }

    fn redecode(&self, raw: &[u8]) -> Option<Result<RecordBatch, Refusal>> {
        // A CSV record means nothing without the header of its file.
        // The letter of an Arrow row holds it as JSON.
        (self.settings.format != Format::Csv).then(|| redecode(&mut self.again.lock(), raw))
    }
}

/// Dropping it ends the thread, which finds nobody to hand events to.
struct FileTask {
    handed: mpsc::Receiver<Handed>,
}

impl SourceTask for FileTask {
    fn next(&mut self) -> BoxFuture<'_, Result<SourceRead, ConnectError>> {
        async move {
            let gone = || Err(ConnectError::temporary("the thread that reads the files ended unexpectedly"));
            self.handed.recv().await.unwrap_or_else(gone)
        }
        .boxed()
    }
}
