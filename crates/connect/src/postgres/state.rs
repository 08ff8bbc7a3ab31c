//! One task's connection: taking over, reading the state, keeping what a commit changes.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use millstream_service::log::TaskId;
use millstream_service::{ConnectError, Owner, StateChanges, StateRow, StoreError, StoredRows, StoredState};
use sha2::{Digest, Sha256};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};

use super::pages::Pages;
use super::{Place, tables};

/// The longest key that stands in the index as it is; PostgreSQL's own limit is 2,700 bytes.
const INDEXED_BYTES_MAX: usize = 1_000;
/// The most bytes of one commit: PostgreSQL takes no message of 1 GiB.
const COMMIT_BYTES_MAX: usize = 768 << 20;

/// How long it may take to let go of all rows of a state.
const VOID_WITHIN: Duration = Duration::from_secs(3_600);

/// The state of one task.
struct TaskState {
    place: Arc<Place>,
    client: Client,
    service: String,
    partition: i32,
    /// The task's number and its owner; `None` until it is taken over.
    mine: Option<(i64, Owner)>,
    pages: Pages,
    store: Statement,
}

/// Connects, and makes the tables where they are missing.
pub(super) async fn connect(place: &Arc<Place>, task: &TaskId) -> Result<Box<dyn StoredState>, ConnectError> {
    let fault = |error: tokio_postgres::Error| place.error(&error);
    let mut client = place.dial(&format!("millstream {}/{task}", place.pipeline)).await?;
    place.within(client.batch_execute(tables::SESSION)).await?.map_err(fault)?;
    place.within(place.make(&mut client)).await??;
    let pages = Pages::prepare(place, &client).await?;
    let store = place.within(client.prepare(&place.store())).await?.map_err(fault)?;
    let place = Arc::clone(place);
    let (service, partition) = (task.service.to_string(), super::partition(task));
    Ok(Box::new(TaskState { place, client, service, partition, mine: None, pages, store }))
}

impl TaskState {
    fn mine(&self) -> Result<(i64, Owner), StoreError> {
        self.mine.ok_or(StoreError::Taken)
    }
}

impl StoredRows for TaskState {
    fn rows(&mut self) -> BoxFuture<'_, Result<Vec<StateRow>, StoreError>> {
        Box::pin(async move {
            let (task, _) = self.mine()?;
            Ok(self.pages.read(&self.place, &self.client, task).await?)
        })
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
            done(&found)
        })
    }

    fn void<'a>(&'a mut self, staged: &'a [u8]) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let (task, owner) = self.mine()?;
            let (void, owner) = (self.place.void(), owner.as_slice());
            let found = async {
                self.client.batch_execute(tables::PATIENCE).await?;
                self.client.query_one(&void, &[&task, &owner, &staged]).await
            };
            let found = self.place.within_at_most(VOID_WITHIN, found).await?.map_err(|e| self.place.error(&e))?;
            done(&found)
        })
    }
}

/// Whether a statement found the task with its owner.
fn done(found: &tokio_postgres::Row) -> Result<(), StoreError> {
    match found.get::<_, i64>(0) {
        1 => Ok(()),
        _ => Err(StoreError::Taken),
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
