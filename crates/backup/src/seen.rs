//! What the store has: manifests, and the objects that are really there.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::manifest::{DATA, FOLDER, Manifest, Piece};
use crate::{Error, Store};

/// What was found in a pipeline's folder, kept up to date by the one who writes there.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// By name, so in the order of time.
    pub(crate) manifests: BTreeMap<String, Manifest>,
    /// Objects of this log that some manifest needs or this process has written, with their lengths.
    present: HashMap<String, u64>,
    /// Objects of this log that nothing needs. Whoever left them may be about to remove them: they are not relied on.
    needless: HashSet<String>,
    /// Manifests that cannot be read: where there are any, nothing is known to be needless.
    unread: BTreeSet<String>,
    /// Whether it must be looked at anew.
    pub(crate) stale: bool,
}

impl Seen {
    /// Looks at all of it. Objects of other logs are none of ours.
    pub(crate) async fn load(store: &Store, log: &str) -> Result<Self, Error> {
        let mut seen = Self::default();
        for (name, _) in store.list(FOLDER).await? {
            // One that went since it was listed is not there.
            let Some(bytes) = store.find(&name).await? else { continue };
            match Manifest::decode(&name, store.shown(), &bytes) {
                Ok(manifest) => {
                    seen.manifests.insert(name, manifest);
                }
                Err(error) => {
                    tracing::warn!(%error, "a backup cannot be read; nothing is removed beside it");
                    seen.unread.insert(name);
                }
            }
        }
        let listed = store.list(&format!("{DATA}/{log}")).await?;
        let needed: HashSet<&str> = seen.manifests.values().flat_map(Manifest::objects).collect();
        for (object, len) in listed {
            if needed.contains(object.as_str()) {
                seen.present.insert(object, len);
            } else {
                seen.needless.insert(object);
            }
        }
        Ok(seen)
    }

    /// Whether the place has the manifests that are known and no others.
    pub(crate) async fn is_current(&self, store: &Store) -> Result<bool, Error> {
        let listed = store.list(FOLDER).await?;
        let known = |name: &String| self.manifests.contains_key(name) || self.unread.contains(name);
        let all = self.manifests.len() + self.unread.len();
        Ok(listed.len() == all && listed.iter().all(|(name, _)| known(name)))
    }

    /// The newest backup of this log.
    pub(crate) fn newest(&self, log: &str) -> Option<&Manifest> {
        self.manifests.values().rev().find(|manifest| manifest.log == log)
    }

    /// The parts of a file in the newest backup that are really there.
    pub(crate) fn pieces(&self, log: &str, path: &str) -> Vec<Piece> {
        let file = self.newest(log).and_then(|manifest| manifest.files.iter().find(|file| file.path == path));
        let pieces = file.into_iter().flat_map(|file| &file.pieces);
        pieces.take_while(|piece| self.has(&piece.object, piece.bytes())).cloned().collect()
    }

    /// Whether an object is there with its whole length.
    pub(crate) fn has(&self, object: &str, bytes: u64) -> bool {
        self.present.get(object) == Some(&bytes)
    }

    pub(crate) fn add(&mut self, object: &str, bytes: u64) {
        self.needless.remove(object);
        self.present.insert(object.to_owned(), bytes);
    }

    /// Removes all but the newest `keep` backups of this log, then the objects that none of those needs.
    pub(crate) async fn tidy(&mut self, store: &Store, log: &str, keep: usize) -> Result<(), Error> {
        let mine = self.manifests.iter().rev().filter(|(_, manifest)| manifest.log == log);
        let old: Vec<String> = mine.skip(keep.max(1)).map(|(name, _)| name.clone()).collect();
        for name in &old {
            store.remove(name).await?;
            self.manifests.remove(name);
        }
        if !self.unread.is_empty() {
            return Ok(());
        }
        let needed: HashSet<&str> = self.manifests.values().flat_map(Manifest::objects).collect();
        let unnamed = self.present.keys().filter(|object| !needed.contains(object.as_str()));
        let needless: Vec<String> = unnamed.chain(&self.needless).cloned().collect();
        for object in needless {
            store.remove(&object).await?;
            self.present.remove(&object);
            self.needless.remove(&object);
        }
        Ok(())
    }
}
