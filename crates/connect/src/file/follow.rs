//! Watching files grow, appear, be renamed, truncated and removed.
//!
//! Each look lists the matching files and does four things in this order: (1) places whose file was renamed follow it by
//! inode; (2) places whose file is gone from the pattern are read to their end, if the file is still in its directory,
//! and forgotten; (3) every file with something new is read to its end; (4) wait.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::Compression;
use super::input::Input;
use super::position::FilePlace;
use super::reader::{End, Reader, Stop};
use crate::decode::{Decode, Format};
use crate::service::ConnectError;

/// The most files kept open between two looks.
const OPEN_MAX: usize = 32;

/// What a file looked like when it was read last: unchanged means nothing to do.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Seen {
    inode: u64,
    size: u64,
}

/// A file kept open, so that it can be read on even when its name is gone.
struct Open {
    input: Input,
    decode: Decode,
}

#[derive(Default)]
struct Watch {
    seen: HashMap<String, Seen>,
    open: HashMap<String, Open>,
    said: bool,
}

impl Reader {
    pub(crate) fn follow(&mut self) -> Result<(), Stop> {
        let mut watch = Watch::default();
        loop {
            let names = self.pattern.names()?;
            if names.is_empty() && !watch.said {
                watch.said = true;
                tracing::info!(pattern = self.pattern.text(), "no file matches yet; waiting");
            }
            let now = self.look(&names);
            self.renamed(&mut watch, &now);
            self.gone_files(&mut watch, &now)?;
            for name in &names {
                if let Some(seen) = now.get(name).copied() {
                    self.follow_file(&mut watch, name, seen)?;
                }
            }
            watch.seen.retain(|name, _| now.contains_key(name));
            if !self.wait() {
                return Err(Stop::Gone);
            }
        }
    }

    fn look(&self, names: &[String]) -> HashMap<String, Seen> {
        let seen = names.iter().filter_map(|name| {
            let meta = fs::metadata(self.pattern.path(name)).ok()?;
            Some((name.clone(), Seen { inode: meta.ino(), size: meta.len() }))
        });
        seen.collect()
    }

    /// Gives each place the name that its file has now.
    fn renamed(&mut self, watch: &mut Watch, now: &HashMap<String, Seen>) {
        let moved = |place: &FilePlace| {
            let stays = now.get(&place.name).is_some_and(|s| s.inode == place.inode);
            let to = now.iter().find(|(_, s)| s.inode == place.inode).map(|(name, _)| name.clone());
            to.filter(|_| !stays)
        };
        let moves: Vec<(FilePlace, String)> =
            self.places.files.iter().filter_map(|place| Some((place.clone(), moved(place)?))).collect();
        let mut opened = Vec::new();
        for (place, _) in &moves {
            self.places.drop_file(&place.name);
            opened.push(watch.open.remove(&place.name));
            watch.seen.remove(&place.name);
        }
        for ((mut place, name), open) in moves.into_iter().zip(opened) {
            tracing::info!(from = place.name, to = name, "a file was renamed; reading goes on in it");
            if let Some(mut open) = open {
                open.input.place.name.clone_from(&name);
                watch.open.insert(name.clone(), open);
            }
            place.name = name;
            self.places.set(place);
        }
    }

    /// Reads what is left of files that the pattern does not find any more (or not under their inode), and forgets them.
    fn gone_files(&mut self, watch: &mut Watch, now: &HashMap<String, Seen>) -> Result<(), Stop> {
        let gone = |place: &&FilePlace| now.get(&place.name).is_none_or(|s| s.inode != place.inode);
        for place in self.places.files.iter().filter(gone).cloned().collect::<Vec<_>>() {
            watch.seen.remove(&place.name);
            let kept = watch.open.remove(&place.name);
            let found = match kept {
                Some(open) => Some((open.input, open.decode)),
                None => self.elsewhere(&place)?,
            };
            match found {
                Some((mut input, mut decode)) => self.drain(&mut input, &mut decode, End::Ends)?,
                // The same content under another inode is a copy that took the file's place (an editor, a restore).
                None if now.contains_key(&place.name) && self.is_copy(&place)? => continue,
                None if place.done => {}
                None => tracing::warn!(
                    file = place.name,
                    read = place.offset,
                    "a followed file is gone; what was not read of it is lost"
                ),
            }
            self.places.drop_file(&place.name);
        }
        Ok(())
    }

    /// Whether the file that has the name now begins as the one that was read and is not shorter. Its place is kept.
    fn is_copy(&mut self, place: &FilePlace) -> Result<bool, ConnectError> {
        let mut input = self.open(&self.pattern.path(&place.name), &place.name)?;
        let same = place.head_bytes > 0 && input.is_of(place)?;
        if same {
            self.places.set(FilePlace { inode: input.place.inode, ..place.clone() });
        }
        Ok(same)
    }

    /// The file of a place under another name in its directory.
    fn elsewhere(&self, place: &FilePlace) -> Result<Option<(Input, Decode)>, Stop> {
        let path = self.pattern.path(&place.name);
        let Some(directory) =
            path.parent().map(|d| if d.as_os_str().is_empty() { PathBuf::from(".") } else { d.into() })
        else {
            return Ok(None);
        };
        let Ok(entries) = fs::read_dir(directory) else { return Ok(None) };
        let same = |e: &fs::DirEntry| e.metadata().is_ok_and(|m| m.is_file() && m.ino() == place.inode);
        match entries.flatten().find(same) {
            Some(entry) => self.resume(entry.path(), place),
            None => Ok(None),
        }
    }

    /// Opens a file at a place; `None` where it is not the place's file, or its header is not there yet.
    fn resume(&self, path: PathBuf, place: &FilePlace) -> Result<Option<(Input, Decode)>, Stop> {
        let mut input = self.open(&path, &place.name)?;
        if !input.is_of(place)? {
            return Ok(None);
        }
        let Some(decode) = self.decoder(&mut input, false)? else { return Ok(None) };
        if place.offset > input.place.offset {
            input = self.open(&path, &place.name)?;
            input.enter(place)?;
        }
        Ok(Some((input, decode)))
    }

    fn follow_file(&mut self, watch: &mut Watch, name: &str, seen: Seen) -> Result<(), Stop> {
        if watch.seen.get(name) == Some(&seen) || self.places.is_forgotten(name) {
            return Ok(());
        }
        let place = self.places.place(name).cloned();
        if place.as_ref().is_some_and(|p| p.done && p.inode == seen.inode) {
            return Ok(());
        }
        let path = self.pattern.path(name);
        if self.settings.format == Format::Arrow {
            // Not whole yet: look again when it has changed.
            watch.seen.insert(name.to_owned(), seen);
            self.follow_arrow(&path, name)?;
            return Ok(());
        }
        let grows = self.settings.compression.of(&path) == Compression::None;
        let kept =
            watch.open.remove(name).filter(|o| o.input.place.inode == seen.inode && o.input.read_to() <= seen.size);
        let opened = match (kept, &place) {
            (Some(open), _) => Some((open.input, open.decode)),
            (None, Some(place)) => match self.resume(path.clone(), place)? {
                Some(resumed) => Some(resumed),
                None => {
                    tracing::warn!(
                        file = name,
                        read = place.offset,
                        size = seen.size,
                        "truncated or replaced; begins anew"
                    );
                    self.places.drop_file(name);
                    self.begin(path, name)?
                }
            },
            (None, None) => self.begin(path, name)?,
        };
        // An incomplete header: look again when the file has changed.
        watch.seen.insert(name.to_owned(), seen);
        let Some((mut input, mut decode)) = opened else { return Ok(()) };
        self.drain(&mut input, &mut decode, if grows { End::Waits } else { End::Ends })?;
        if !grows {
            let mut place = input.place.clone();
            place.done = true;
            self.places.set(place);
        } else if watch.open.len() < OPEN_MAX {
            watch.open.insert(name.to_owned(), Open { input, decode });
        }
        Ok(())
    }

    fn begin(&self, path: PathBuf, name: &str) -> Result<Option<(Input, Decode)>, Stop> {
        let mut input = match fs::metadata(&path) {
            Ok(_) => self.open(&path, name)?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(self.fault("opening", name, &e).into()),
        };
        let decode = self.decoder(&mut input, false)?;
        Ok(decode.map(|decode| (input, decode)))
    }
}
