//! One round: copies what is new, then says so in a manifest.

use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _};
use millstream_log::backup::{CHECKPOINT, Image, Source, Step};

use crate::cover::cover;
use crate::manifest::{DATA, FOLDER, Manifest, ManifestFile, Piece};
use crate::owner::Owner;
use crate::seen::Seen;
use crate::{Error, Store};

/// How many objects are written at a time; each is in memory meanwhile.
const WRITES_MAX: usize = 4;
/// After so many rounds all objects are listed again, to see that they are there.
const LIST_AFTER: u32 = 30;
/// How often a round takes a new image because the log was settled meanwhile.
const TRIES_MAX: usize = 20;

/// A small file beside the log, such as a list of what is paused: its name and its bytes.
pub type Beside = (String, Vec<u8>);

/// Copies one log to one place, again and again.
#[derive(Debug)]
pub struct Backup {
    store: Store,
    source: Arc<Source>,
    pipeline: String,
    keep: usize,
    owner: Owner,
    /// What the place has; looked at anew after a round that failed, and now and then.
    seen: Option<Seen>,
    /// Rounds since that was listed.
    listed: u32,
}

/// What a round did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// The manifest that says what the log was at its beginning.
    pub manifest: String,
    /// Of when that manifest is, in microseconds since 1970.
    pub time_us: i64,
    /// Objects that were written, besides the manifest; none where nothing had changed.
    pub objects: u64,
    /// Their bytes.
    pub written: u64,
    /// The bytes of all that the manifest names.
    pub bytes: u64,
    /// How many positions of tasks are in it.
    pub positions: u64,
}

/// A round's writes.
#[derive(Debug, Default)]
struct Written {
    objects: u64,
    bytes: u64,
}

impl Backup {
    /// Copies the log of `source` below `store`, in a folder of the pipeline's own, and keeps the newest `keep` backups.
    pub fn new(store: &Store, source: Source, pipeline: &str, keep: usize) -> Self {
        let (store, pipeline) = (store.folder(pipeline), pipeline.to_owned());
        Self { store, source: Arc::new(source), pipeline, keep, owner: Owner::new(), seen: None, listed: 0 }
    }

    /// Lets the next round take the place over again, from whoever backs the same log up there. The first round does so
    /// anyway.
    pub fn take_over(&mut self) {
        self.owner.take_over();
    }

    /// Copies what is new. `beside` are files to lie beside the log, `now_us` the time of day.
    ///
    /// # Errors
    /// Whatever the store or the log refuses; what was backed up before stays as it is, and the next round goes on.
    /// [`Error::TakenOver`] where another process backs the same log up to this place since, until [`Backup::take_over`].
    pub async fn round(&mut self, beside: Vec<Beside>, now_us: i64) -> Result<Done, Error> {
        self.listed += 1;
        let mut seen = self.seen.take().filter(|_| self.listed < LIST_AFTER);
        let done = self.try_round(&mut seen, beside, now_us).await?;
        self.seen = seen.filter(|seen| !seen.stale);
        Ok(done)
    }

    async fn try_round(&mut self, seen: &mut Option<Seen>, beside: Vec<Beside>, now_us: i64) -> Result<Done, Error> {
        let mut written = Written::default();
        for _ in 0..TRIES_MAX {
            let source = Arc::clone(&self.source);
            let image = Arc::new(blocking(move || source.image()).await?);
            let log = format!("{:032x}", image.log);
            if self.owner.begin(&self.store, &log, now_us).await? {
                *seen = None;
            }
            if seen.is_none() {
                self.listed = 0;
            }
            let known = match &mut *seen {
                Some(seen) => seen,
                none => none.insert(self.look(&log).await?),
            };
            let Some(files) = self.copy(&image, &log, known, &beside, &mut written).await? else { continue };
            match self.say(&image, known, files, now_us, &written).await? {
                Some(done) => return Ok(done),
                None => *seen = None,
            }
        }
        Err(Error::Outrun(TRIES_MAX))
    }

    async fn look(&self, log: &str) -> Result<Seen, Error> {
        let seen = Seen::load(&self.store, log).await?;
        let others = seen.manifests.values().filter(|manifest| manifest.log != log).count();
        if others > 0 {
            let (place, pipeline) = (self.store.shown(), &self.pipeline);
            tracing::warn!(others, place, %pipeline, "there are backups of another log of this name; they are kept: restore one, or remove them by hand");
        }
        Ok(seen)
    }

    /// Writes what is not there; `None` where the log has gone on so that a new image is needed.
    async fn copy(
        &self,
        image: &Arc<Image>,
        log: &str,
        seen: &mut Seen,
        beside: &[Beside],
        written: &mut Written,
    ) -> Result<Option<Vec<ManifestFile>>, Error> {
        let (mut files, mut wanted) = (Vec::new(), Vec::new());
        for file in &image.files {
            let cover = cover(file, &seen.pieces(log, &file.path));
            wanted.extend(cover.new.into_iter().map(|(from, to)| (files.len(), file.path.clone(), from, to)));
            files.push(ManifestFile { path: file.path.clone(), pieces: cover.reused });
        }
        let seen_now: &Seen = seen;
        let copies = wanted.into_iter().map(|(at, path, from, to)| async move {
            let piece = self.piece(image, log, seen_now, path, from, to).await?;
            Ok::<_, Error>((at, piece))
        });
        // In order, so that parts follow each other; all of one image, or none.
        let mut copies = futures::stream::iter(copies).buffered(WRITES_MAX);
        let mut fresh = Vec::new();
        let mut moved = false;
        while let Some((at, piece)) = copies.try_next().await? {
            let Some((piece, new)) = piece else {
                moved = true;
                break;
            };
            if new {
                written.objects += 1;
                written.bytes += piece.bytes();
            }
            fresh.push((at, piece));
        }
        drop(copies);
        for (at, piece) in fresh {
            seen.add(&piece.object, piece.bytes());
            if let Some(file) = files.get_mut(at) {
                file.pieces.push(piece);
            }
        }
        if moved {
            return Ok(None);
        }
        let small = [(CHECKPOINT.to_owned(), image.checkpoint.clone())];
        for (path, bytes) in small.iter().chain(beside).filter(|(_, bytes)| !bytes.is_empty()) {
            let piece = self.small(log, seen, path, bytes, written).await?;
            files.push(ManifestFile { path: path.clone(), pieces: vec![piece] });
        }
        Ok(Some(files))
    }

    /// A part of a file, and whether it had to be written; `None` where the log has gone on.
    async fn piece(
        &self,
        image: &Arc<Image>,
        log: &str,
        seen: &Seen,
        path: String,
        from: Step,
        to: Step,
    ) -> Result<Option<(Piece, bool)>, Error> {
        let object = format!("{DATA}/{log}/{path}/{}-{}-{:08x}", from.to, to.to, to.mark);
        let (source, image) = (Arc::clone(&self.source), Arc::clone(image));
        let Some(bytes) = blocking(move || source.read(&image, &path, from, to)).await? else { return Ok(None) };
        let piece = Piece { from: from.to, to: to.to, mark: to.mark, crc: crc32fast::hash(&bytes), object };
        let new = !seen.has(&piece.object, piece.bytes());
        if new {
            self.store.put(&piece.object, bytes).await?;
        }
        Ok(Some((piece, new)))
    }

    /// A file that is one object.
    async fn small(
        &self,
        log: &str,
        seen: &mut Seen,
        path: &str,
        bytes: &[u8],
        written: &mut Written,
    ) -> Result<Piece, Error> {
        let (crc, len) = (crc32fast::hash(bytes), bytes.len() as u64);
        let object = format!("{DATA}/{log}/{path}/0-{len}-{crc:08x}");
        if !seen.has(&object, len) {
            self.store.put(&object, bytes.to_vec()).await?;
            seen.add(&object, len);
            written.objects += 1;
            written.bytes += len;
        }
        Ok(Piece { from: 0, to: len, mark: crc, crc, object })
    }

    /// Writes the manifest, and removes what is older than what is kept. `None` where the place is not as it was seen.
    async fn say(
        &self,
        image: &Image,
        seen: &mut Seen,
        files: Vec<ManifestFile>,
        now_us: i64,
        written: &Written,
    ) -> Result<Option<Done>, Error> {
        let mut manifest = Manifest::new(&self.pipeline, image.log, now_us, image.group, image.positions);
        manifest.files = files;
        let before = seen.newest(&manifest.log);
        let unchanged = before.filter(|before| before.files == manifest.files).cloned();
        if let Some(before) = unchanged {
            return Ok(Some(done(&before, written)));
        }
        // A clock that was set back must not make an older backup the newest.
        if let Some(before) = before {
            manifest.time_us = manifest.time_us.max(before.time_us + 1);
        }
        if !seen.is_current(&self.store).await? {
            return Ok(None);
        }
        let name = format!("{FOLDER}/{}", manifest.name());
        let json = serde_json::to_vec(&manifest).map_err(|e| Error::Ended(e.to_string()))?;
        self.owner.check(&self.store, &manifest.log).await?;
        self.store.put(&name, json).await?;
        // Who has taken the place over before it was there does not know it, and may remove what it needs.
        if let Err(error) = self.owner.check(&self.store, &manifest.log).await {
            if matches!(error, Error::TakenOver { .. }) {
                self.store.remove(&name).await?;
            }
            return Err(error);
        }
        let done = done(&manifest, written);
        seen.manifests.insert(name, manifest);
        let log = format!("{:032x}", image.log);
        if let Err(error) = seen.tidy(&self.store, &log, self.keep).await {
            tracing::warn!(%error, "older backups are not removed; the next round tries again");
            seen.stale = true;
        }
        Ok(Some(done))
    }
}

fn done(manifest: &Manifest, written: &Written) -> Done {
    Done {
        manifest: manifest.name(),
        time_us: manifest.time_us,
        objects: written.objects,
        written: written.bytes,
        bytes: manifest.bytes(),
        positions: manifest.positions,
    }
}

/// Does what blocks on a thread for it.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, millstream_log::Error> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|e| Error::Ended(e.to_string()))??)
}
