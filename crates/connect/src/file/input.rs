//! An open file as a stream of bytes with a place: plain, gzip or zstd.
//!
//! Offsets count decompressed bytes. A plain file is entered by seeking; a compressed one is decompressed up to the
//! place, which costs time and no memory.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::position::FilePlace;
use super::{Compression, io_error};
use crate::decode::checksum;
use crate::service::ConnectError;

/// How many bytes are read at once.
pub(crate) const CHUNK_BYTES: usize = 1 << 20;
/// How many of a file's first bytes tell it from others.
const HEAD_BYTES: usize = 256;
/// The most bytes of a CSV header.
pub(crate) const HEADER_BYTES_MAX: usize = 1 << 20;

/// An open file and the bytes of it that were read but not taken.
pub(crate) struct Input {
    path: PathBuf,
    stream: Box<dyn Read + Send>,
    compression: Compression,
    /// A second handle of the same file, to ask for its size after it was renamed.
    file: File,
    buffer: Vec<u8>,
    /// The bytes of `buffer` that were taken already.
    taken: usize,
    pub(crate) place: FilePlace,
    ended: bool,
}

impl Input {
    /// Opens a file at its beginning.
    pub(crate) fn open(path: &Path, name: &str, compression: Compression) -> Result<Self, ConnectError> {
        let fault = |doing: &str, e: &io::Error| io_error(doing, path, e);
        let mut file = File::open(path).map_err(|e| fault("opening", &e))?;
        let inode = file.metadata().map_err(|e| fault("reading", &e))?.ino();
        let head = head(&mut file, HEAD_BYTES).map_err(|e| fault("reading", &e))?;
        let compression = compression.of(path);
        let stream = stream(&file, compression).map_err(|e| fault("opening", &e))?;
        let place = FilePlace {
            name: name.to_owned(),
            inode,
            head_bytes: head.len() as u32,
            head: checksum(&head),
            offset: 0,
            lines: 0,
            done: false,
        };
        let path = path.to_owned();
        Ok(Self { path, stream, compression, file, buffer: Vec::new(), taken: 0, place, ended: false })
    }

    /// Whether this file, opened at its beginning, is the one that a place was noted for.
    pub(crate) fn is_of(&mut self, place: &FilePlace) -> Result<bool, ConnectError> {
        let bytes = head(&mut self.file, place.head_bytes as usize).map_err(|e| self.fault("reading", &e))?;
        let long_enough = self.compression != Compression::None || self.size()? >= place.offset;
        let same_head = bytes.len() == place.head_bytes as usize && checksum(&bytes) == place.head;
        // A file that was empty when it was noted has no beginning to be known by.
        Ok(long_enough && same_head && (place.head_bytes > 0 || self.place.inode == place.inode))
    }

    /// Goes to a place, from the beginning.
    pub(crate) fn enter(&mut self, place: &FilePlace) -> Result<(), ConnectError> {
        if self.compression == Compression::None {
            self.file.seek(SeekFrom::Start(place.offset)).map_err(|e| self.fault("reading", &e))?;
            self.stream = stream(&self.file, Compression::None).map_err(|e| self.fault("opening", &e))?;
            self.buffer.clear();
            self.taken = 0;
        } else {
            let mut left = place.offset;
            while left > 0 {
                self.fill(1)?;
                let here = (self.bytes().len() as u64).min(left);
                if here == 0 {
                    return Err(ConnectError::permanent(format!(
                        "{} ends {left} bytes before the place where reading stopped; it was replaced by a shorter \
                         file. Put the old file back, or give the new one another name",
                        self.path.display()
                    )));
                }
                self.skip(here as usize);
                left -= here;
            }
        }
        self.place.offset = place.offset;
        self.place.lines = place.lines;
        Ok(())
    }

    /// The bytes read and not yet taken.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.buffer.get(self.taken..).unwrap_or_default()
    }

    /// Whether the end of the file was seen by the last [`Input::fill`].
    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    /// Reads until at least `wanted` bytes are there or the file ends.
    pub(crate) fn fill(&mut self, wanted: usize) -> Result<(), ConnectError> {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        self.ended = false;
        while self.buffer.len() < wanted {
            let room = CHUNK_BYTES.max(wanted - self.buffer.len()) as u64;
            let read = (&mut self.stream).take(room).read_to_end(&mut self.buffer);
            let read = read.map_err(|e| self.fault("reading", &e))?;
            if read == 0 {
                self.ended = true;
                return Ok(());
            }
        }
        Ok(())
    }

    /// Takes bytes: the place moves behind them.
    pub(crate) fn take(&mut self, bytes: usize) {
        let lines = memchr::memchr_iter(b'\n', self.bytes().get(..bytes).unwrap_or_default()).count();
        self.place.lines += lines as u64;
        self.place.offset += bytes as u64;
        self.skip(bytes);
    }

    /// Takes bytes that are so many events.
    pub(crate) fn take_rows(&mut self, bytes: usize, rows: u64) {
        self.place.lines += rows;
        self.place.offset += bytes as u64;
        self.skip(bytes);
    }

    /// Goes on behind bytes that are so many events without reading them.
    pub(crate) fn pass(&mut self, bytes: u64, rows: u64) -> Result<(), ConnectError> {
        match usize::try_from(bytes) {
            Ok(here) if here <= self.bytes().len() => self.take_rows(here, rows),
            _ => {
                let (offset, lines) = (self.place.offset + bytes, self.place.lines + rows);
                if self.size()? < offset {
                    let what = "ends before the place where reading stopped; put the old file back";
                    return Err(ConnectError::permanent(format!("{} {what}", self.path.display())));
                }
                self.enter(&FilePlace { offset, lines, ..self.place.clone() })?;
                self.ended = false;
            }
        }
        Ok(())
    }

    /// Whether the file is compressed as a whole.
    pub(crate) fn compressed(&self) -> bool {
        self.compression != Compression::None
    }

    /// Makes so many of the first bytes tell the file from others.
    pub(crate) fn note_beginning(&mut self, bytes: usize) -> Result<(), ConnectError> {
        let head = head(&mut self.file, bytes).map_err(|e| self.fault("reading", &e))?;
        self.place.head_bytes = head.len() as u32;
        self.place.head = checksum(&head);
        Ok(())
    }

    /// The first and the last bytes of a plain file, so many of each.
    pub(crate) fn ends(&mut self, bytes: usize) -> Result<(Vec<u8>, Vec<u8>), ConnectError> {
        let size = self.size()?;
        let begin = bytes_at(&mut self.file, 0, bytes).map_err(|e| self.fault("reading", &e))?;
        let end = bytes_at(&mut self.file, size.saturating_sub(bytes as u64), bytes);
        Ok((begin, end.map_err(|e| self.fault("reading", &e))?))
    }

    fn skip(&mut self, bytes: usize) {
        self.taken = (self.taken + bytes).min(self.buffer.len());
    }

    /// The file's size as it is stored.
    pub(crate) fn size(&self) -> Result<u64, ConnectError> {
        Ok(self.file.metadata().map_err(|e| self.fault("reading", &e))?.len())
    }

    /// How many stored bytes there were at most, for plain files: taken and buffered.
    pub(crate) fn read_to(&self) -> u64 {
        self.place.offset + self.bytes().len() as u64
    }

    /// Extends the checksum of the beginning while the file is shorter than it should be.
    pub(crate) fn note_head(&mut self) -> Result<(), ConnectError> {
        if (self.place.head_bytes as usize) < HEAD_BYTES {
            let head = head(&mut self.file, HEAD_BYTES).map_err(|e| self.fault("reading", &e))?;
            self.place.head_bytes = head.len() as u32;
            self.place.head = checksum(&head);
        }
        Ok(())
    }

    fn fault(&self, doing: &str, e: &io::Error) -> ConnectError {
        let damaged =
            matches!(e.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::Other)
                || e.kind() == io::ErrorKind::UnexpectedEof;
        if self.compression != Compression::None && damaged && e.raw_os_error().is_none() {
            return ConnectError::permanent(format!(
                "{} is damaged or incomplete as {}: {e}. Replace it by a whole one of the same content",
                self.path.display(),
                self.compression
            ));
        }
        io_error(doing, &self.path, e)
    }
}

/// Reads the first bytes without moving the place of a reader that shares the file.
fn head(file: &mut File, bytes: usize) -> io::Result<Vec<u8>> {
    bytes_at(file, 0, bytes)
}

/// Reads bytes from a place on, fewer where the file ends, without moving the place of a reader that shares the file.
fn bytes_at(file: &mut File, from: u64, bytes: usize) -> io::Result<Vec<u8>> {
    use std::os::unix::fs::FileExt;
    let mut head = vec![0; bytes];
    let mut have = 0;
    while let Some(rest) = head.get_mut(have..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, from + have as u64) {
            Ok(0) => break,
            Ok(read) => have += read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    head.truncate(have);
    Ok(head)
}

fn stream(file: &File, compression: Compression) -> io::Result<Box<dyn Read + Send>> {
    let file = file.try_clone()?;
    Ok(match compression {
        Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(io::BufReader::with_capacity(1 << 16, file))),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::new(file)?),
        Compression::None | Compression::Auto => Box::new(file),
    })
}
