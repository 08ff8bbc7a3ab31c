//! Reading each file once, in the order of names.

use std::path::Path;

use super::input::Input;
use super::position::FilePlace;
use super::reader::{End, Reader, Stop};
use crate::decode::{Decode, Format};
use crate::service::ConnectError;

impl Reader {
    pub(crate) fn once(&mut self) -> Result<(), Stop> {
        let mut found = self.places.before.is_some() || !self.places.files.is_empty();
        if let Some(place) = self.places.files.first().cloned() {
            self.once_file(&place.name)?;
        }
        loop {
            let names = self.pattern.names()?;
            let next = names.iter().find(|name| self.places.before.as_ref().is_none_or(|before| *name > before));
            let Some(name) = next else { break };
            found = true;
            let name = name.clone();
            self.once_file(&name)?;
        }
        if !found {
            let text = self.pattern.text();
            return Err(ConnectError::permanent(format!("no file matches `{text}`; check the path")).into());
        }
        Ok(())
    }

    fn once_file(&mut self, name: &str) -> Result<(), Stop> {
        if self.settings.format == Format::Arrow {
            let path = self.pattern.path(name);
            let mut input = self.open(&path, name)?;
            self.same_file(&mut input, &path)?;
            drop(input);
            self.arrow(&path, name, End::Finishes)?;
        } else if let Some((mut input, mut decode)) = self.enter(name)? {
            self.drain(&mut input, &mut decode, End::Finishes)?;
        }
        self.places.finish(name);
        Ok(())
    }

    /// The place noted for an opened file, which must be the one that it was noted for.
    fn same_file(&self, input: &mut Input, path: &Path) -> Result<Option<FilePlace>, Stop> {
        let Some(place) = self.places.place(&input.place.name).cloned() else { return Ok(None) };
        if input.is_of(&place)? {
            return Ok(Some(place));
        }
        Err(ConnectError::permanent(format!(
            "{} is not the file of which {} bytes were read; put that file back, or give the new one a name that sorts \
             behind it",
            path.display(),
            place.offset
        ))
        .into())
    }

    /// Opens a file at its noted place. `None`: it is empty.
    fn enter(&self, name: &str) -> Result<Option<(Input, Decode)>, Stop> {
        let path = self.pattern.path(name);
        let mut input = self.open(&path, name)?;
        let place = self.same_file(&mut input, &path)?;
        let Some(decode) = self.decoder(&mut input, true)? else { return Ok(None) };
        if let Some(place) = place.filter(|place| place.offset > input.place.offset) {
            // The decoder may have read a header; a compressed stream cannot go back.
            input = self.open(&path, name)?;
            input.enter(&place)?;
        }
        Ok(Some((input, decode)))
    }
}
