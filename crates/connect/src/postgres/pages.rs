//! The rows of a task's state, a page at a time: for its owner, and for whoever only wants to see them.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use millstream_service::log::TaskId;
use millstream_service::{ConnectError, StateRow, StoreError, StoredRows};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Row, Statement};

use super::{Place, tables};

/// How many rows of state are read at once.
const PAGE_ROWS: i64 = 2_000;

/// Where reading goes on.
pub(super) struct Pages {
    page: Statement,
    /// `None`: all was read.
    next: Option<Vec<u8>>,
}

impl Pages {
    pub(super) async fn prepare(place: &Place, client: &Client) -> Result<Self, ConnectError> {
        let page = place.within(client.prepare(&place.rows())).await?.map_err(|e| place.error(&e))?;
        Ok(Self { page, next: Some(Vec::new()) })
    }

    /// The next rows of the task with this number; none: that was all.
    pub(super) async fn read(
        &mut self,
        place: &Place,
        client: &Client,
        task: i64,
    ) -> Result<Vec<StateRow>, ConnectError> {
        let Some(from) = self.next.take() else { return Ok(Vec::new()) };
        let found = async { client.query(&self.page, &[&task, &from, &PAGE_ROWS]).await };
        let found = place.within(found).await?.map_err(|e| place.error(&e))?;
        if let Some(last) = found.last().filter(|_| found.len() as i64 >= PAGE_ROWS) {
            let mut next: Vec<u8> = last.get(0);
            // The smallest that is greater.
            next.push(0);
            self.next = Some(next);
        }
        Ok(found.iter().map(row).collect())
    }
}

fn row(row: &Row) -> StateRow {
    let (key, long, value): (Vec<u8>, Option<Vec<u8>>, Vec<u8>) = (row.get(0), row.get(1), row.get(2));
    (Bytes::from(long.unwrap_or(key)), Bytes::from(value))
}

/// A task's state as it was at one moment.
struct Seen {
    place: Arc<Place>,
    client: Client,
    task: i64,
    pages: Pages,
}

/// Looks at a task's state. The transaction ends with the connection.
pub(super) async fn look(place: &Arc<Place>, task: &TaskId) -> Result<Option<Box<dyn StoredRows>>, ConnectError> {
    let fault = |error: tokio_postgres::Error| place.error(&error);
    let client = place.dial(&format!("millstream {} looks at {task}", place.pipeline)).await?;
    place.within(client.batch_execute(tables::SESSION)).await?.map_err(fault)?;
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    place.within(client.batch_execute(begin)).await?.map_err(fault)?;
    let (number, partition) = (place.number(), super::partition(task));
    let service = task.service.to_string();
    let found = async { client.query_opt(&number, &[&place.pipeline, &service, &partition]).await };
    let found = match place.within(found).await? {
        // Nobody has made the tables yet.
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => None,
        found => found.map_err(fault)?,
    };
    let Some(task) = found.map(|row| row.get(0)) else { return Ok(None) };
    let pages = Pages::prepare(place, &client).await?;
    Ok(Some(Box::new(Seen { place: Arc::clone(place), client, task, pages })))
}

impl StoredRows for Seen {
    fn rows(&mut self) -> BoxFuture<'_, Result<Vec<StateRow>, StoreError>> {
        Box::pin(async move { Ok(self.pages.read(&self.place, &self.client, self.task).await?) })
    }
}
