//! The names of files and directories: as they are seen, as they are on the disk, and what was done between.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::super::DirEntry;
use super::disk::Inode;
use super::rng::Rng;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    File(Inode),
    Dir,
}

#[derive(Debug, Clone)]
enum Change {
    Insert(PathBuf, Node),
    Remove(PathBuf, Node),
    Rename(PathBuf, PathBuf, Node),
}

type Map = BTreeMap<PathBuf, Node>;

#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    current: Map,
    durable: Map,
    /// What was done since, in order; each belongs to a directory and stays until that is synced.
    pending: Vec<Change>,
}

impl Change {
    /// The directory whose sync makes it durable.
    fn dir(&self) -> Option<&Path> {
        match self {
            Self::Insert(path, _) | Self::Remove(path, _) | Self::Rename(_, path, _) => path.parent(),
        }
    }

    fn apply(&self, map: &mut Map) {
        match self {
            Self::Insert(path, node) => {
                map.insert(path.clone(), *node);
            }
            Self::Remove(path, node) => {
                if map.get(path) == Some(node) {
                    map.remove(path);
                }
            }
            Self::Rename(from, to, node) => {
                if map.get(from) == Some(node) {
                    map.remove(from);
                }
                map.insert(to.clone(), *node);
            }
        }
    }
}

fn is_root(path: &Path) -> bool {
    path.parent().is_none_or(|parent| parent.as_os_str().is_empty())
}

impl Names {
    pub(super) fn get(&self, path: &Path) -> Option<Node> {
        self.current.get(path).copied()
    }

    pub(super) fn files(&self) -> impl Iterator<Item = (&PathBuf, Inode)> {
        self.current.iter().filter_map(|(path, node)| match node {
            Node::File(inode) => Some((path, *inode)),
            Node::Dir => None,
        })
    }

    pub(super) fn need_parent(&self, path: &Path) -> io::Result<()> {
        match path.parent() {
            Some(parent) if !is_root(path) && self.get(parent) != Some(Node::Dir) && !is_root(parent) => {
                Err(io::ErrorKind::NotFound.into())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn insert(&mut self, path: PathBuf, node: Node) {
        self.change(Change::Insert(path, node));
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        match self.get(path) {
            Some(node @ Node::File(_)) => {
                self.change(Change::Remove(path.to_owned(), node));
                Ok(())
            }
            Some(Node::Dir) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        match self.get(from) {
            Some(node @ Node::File(_)) => {
                self.change(Change::Rename(from.to_owned(), to.to_owned(), node));
                Ok(())
            }
            Some(Node::Dir) => Err(io::ErrorKind::Unsupported.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn create_dir_all(&mut self, dir: &Path) -> io::Result<()> {
        let mut missing = Vec::new();
        for path in dir.ancestors().take_while(|path| !is_root(path)) {
            match self.get(path) {
                Some(Node::Dir) => break,
                Some(Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                None => missing.push(path.to_owned()),
            }
        }
        missing.into_iter().rev().for_each(|path| self.change(Change::Insert(path, Node::Dir)));
        Ok(())
    }

    pub(super) fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        if !is_root(dir) && self.get(dir) != Some(Node::Dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = self.current.iter().filter(|(path, _)| path.parent() == Some(dir));
        let mut entries: Vec<DirEntry> = inside
            .map(|(path, node)| {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                DirEntry { name, is_dir: *node == Node::Dir }
            })
            .collect();
        entries.sort();
        Ok(entries)
    }

    pub(super) fn sync_dir(&mut self, dir: &Path) -> io::Result<()> {
        if !is_root(dir) && self.get(dir) != Some(Node::Dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let durable = &mut self.durable;
        self.pending.retain(|change| {
            let here = change.dir() == Some(dir);
            if here {
                change.apply(durable);
            }
            !here
        });
        Ok(())
    }

    pub(super) fn sync_all(&mut self) {
        self.durable = self.current.clone();
        self.pending.clear();
    }

    pub(super) fn after_crash(&self, rng: &mut Rng) -> Self {
        let mut map = self.durable.clone();
        let odds = rng.odds();
        for change in &self.pending {
            if rng.chance(odds) {
                change.apply(&mut map);
            }
        }
        let dirs: Vec<PathBuf> = map.iter().filter(|(_, node)| **node == Node::Dir).map(|(p, _)| p.clone()).collect();
        let whole = |path: &Path| path.ancestors().skip(1).all(|up| is_root(up) || dirs.iter().any(|dir| dir == up));
        map.retain(|path, _| is_root(path) || whole(path));
        Self { current: map.clone(), durable: map, pending: Vec::new() }
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.current);
        self.pending.push(change);
    }
}
