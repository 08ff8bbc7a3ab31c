//! One task's connection: taking over, reading the state, keeping what a commit changes.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use millstream_service::log::TaskId;
use millstream_service::{ConnectError, Owner, StateChanges, StateRow, StoreError, StoredState};
use sha2::{Digest, Sha256};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};

use super::{Place, tables};

/// How many rows of state are read at once.
const PAGE_ROWS: i64 = 2_000;
/// The longest key that stands in the index as it is; PostgreSQL's own limit is 2,700 bytes.
const INDEXED_BYTES_MAX: usize = 1_000;
/// The most bytes of one commit: PostgreSQL takes no message of 1 GiB.
const COMMIT_BYTES_MAX: usize = 768 << 20;

/// The state of one task.
struct TaskState {
    place: Arc<Place>,
    client: Client,
    service: String,
    partition: i32,
    /// The task's number and its owner; `None` until it is taken over.
    mine: Option<(i64, Owner)>,
    rows: Statement,
    store: Statement,
    /// Where reading goes on; `None`: all was read.
    next: Option<Vec<u8>>,
}

/// Connects, and makes the tables where they are missing.
pub(super) async fn connect(place: &Arc<Place>, task: &TaskId) -> Result<Box<dyn StoredState>, ConnectError> {
    let fault = |error: tokio_postgres::Error| place.error(&error);
    let mut client = place.dial(&format!("millstream {}/{task}", place.pipeline)).await?;
    place.within(client.batch_execute(tables::SESSION)).await?.map_err(fault)?;
    place.within(place.make(&mut client)).await??;
    let partition = i32::try_from(task.partition.0).unwrap_or(i32::MAX);
    let rows = place.within(client.prepare(&place.rows())).await?.map_err(fault)?;
    let store = place.within(client.prepare(&place.store())).await?.map_err(fault)?;
    let place = Arc::clone(place);
    let service = task.service.to_string();
    Ok(Box::new(TaskState { place, client, service, partition, mine: None, rows, store, next: Some(Vec::new()) }))
}

impl TaskState {
    fn mine(&self) -> Result<(i64, Owner), StoreError> {
        self.mine.ok_or(StoreError::Taken)
    }
}

impl StoredState for TaskState {
    fn staged(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>> {
        Box::pin(async move {
            let look = self.place.look();
            let found =
                async { self.client.query_opt(&look, &[&self.place.pipeline, &self.service, &self.partition]).await };
            let found = self.place.within(found).await?.map_err(|e| self.place.error(&e))?;
            Ok(found.and_then(|row| row.get::<_, Option<Vec<u8>>>(0)).map(Bytes::from))
        })
    }

    fn own(&mut self, owner: Owner) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>> {
        Box::pin(async move {
            let (own, mine) = (self.place.own(), owner.as_slice());
            let owned = async {
                self.client.query_one(&own, &[&self.place.pipeline, &self.service, &self.partition, &mine]).await
            };
            let owned = self.place.within(owned).await?.map_err(|e| self.place.error(&e))?;
            self.mine = Some((owned.get(0), owner));
            Ok(owned.get::<_, Option<Vec<u8>>>(1).map(Bytes::from))
        })
    }

    fn rows(&mut self) -> BoxFuture<'_, Result<Vec<StateRow>, StoreError>> {
        Box::pin(async move {
            let Some(from) = self.next.take() else { return Ok(Vec::new()) };
            let (task, _) = self.mine()?;
            let found = async { self.client.query(&self.rows, &[&task, &from, &PAGE_ROWS]).await };
            let found = self.place.within(found).await?.map_err(|e| self.place.error(&e))?;
            if let Some(last) = found.last().filter(|_| found.len() as i64 >= PAGE_ROWS) {
                let mut next: Vec<u8> = last.get(0);
                // The smallest that is greater.
                next.push(0);
                self.next = Some(next);
            }
            let row = |row: &tokio_postgres::Row| {
                let (key, long, value): (Vec<u8>, Option<Vec<u8>>, Vec<u8>) = (row.get(0), row.get(1), row.get(2));
                (Bytes::from(long.unwrap_or(key)), Bytes::from(value))
            };
            Ok(found.iter().map(row).collect())
        })
    }

    fn store<'a>(
        &'a mut self,
        changes: &'a StateChanges<'a>,
        staged: &'a [u8],
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let lists = [&changes.keys, &changes.values, &changes.gone];
            let bytes: usize = lists.into_iter().flatten().map(|item| item.len() + 4).sum::<usize>() + staged.len();
            if bytes > COMMIT_BYTES_MAX {
                let text =
                    format!("a commit of {bytes} bytes is more than PostgreSQL takes at once; lower `batch_max`");
                return Err(ConnectError::permanent(text).into());
            }
            let keys: Vec<Cow<'_, [u8]>> = changes.keys.iter().map(|key| indexed(key)).collect();
            let long: Vec<Option<&[u8]>> = changes.keys.iter().map(|key| is_long(key).then_some(*key)).collect();
            let gone: Vec<Cow<'_, [u8]>> = changes.gone.iter().map(|key| indexed(key)).collect();
            let (task, owner) = self.mine()?;
            let (owner, values) = (owner.as_slice(), &changes.values);
            let found = async {
                let values = [&task as &(dyn ToSql + Sync), &owner, &staged, &keys, &long, values, &gone];
                self.client.query_one(&self.store, &values).await
            };
            let found = self.place.within(found).await?.map_err(|e| self.place.error(&e))?;
            match found.get::<_, i64>(0) {
                1 => Ok(()),
                _ => Err(StoreError::Taken),
            }
        })
    }
}

fn is_long(key: &[u8]) -> bool {
    key.len() > INDEXED_BYTES_MAX
}

/// A key as it stands in the index: a long one by its beginning and its hash, which is longer than any that stands as
/// it is.
fn indexed(key: &[u8]) -> Cow<'_, [u8]> {
    if !is_long(key) {
        return Cow::Borrowed(key);
    }
    let mut short = key.get(..INDEXED_BYTES_MAX).unwrap_or_default().to_vec();
    short.extend_from_slice(&Sha256::digest(key));
    Cow::Owned(short)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_keys_are_told_apart_and_fit_the_index() {
        let (a, b) = (vec![7; 5_000], vec![7; 5_001]);
        assert_ne!(indexed(&a), indexed(&b));
        assert_eq!(indexed(&a).len(), INDEXED_BYTES_MAX + 32);
        assert_eq!(indexed(&a[..1_000]).as_ref(), &a[..1_000]);
    }
}
