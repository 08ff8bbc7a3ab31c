//! Reading each file once, in the order of names.

use super::input::Input;
use super::reader::{End, Reader, Stop};
use crate::decode::Decode;
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
        if let Some((mut input, mut decode)) = self.enter(name)? {
            self.drain(&mut input, &mut decode, End::Finishes)?;
        }
        self.places.finish(name);
        Ok(())
    }

    /// Opens a file at its noted place. `None`: it is empty.
    fn enter(&self, name: &str) -> Result<Option<(Input, Decode)>, Stop> {
        let path = self.pattern.path(name);
        let mut input = self.open(&path, name)?;
        let place = self.places.place(name).cloned();
        if let Some(place) = place.as_ref()
            && !input.is_of(place)?
        {
            return Err(ConnectError::permanent(format!(
                "{} is not the file of which {} bytes were read; put that file back, or give the new one a name that \
                 sorts behind it",
                path.display(),
                place.offset
            ))
            .into());
        }
        let Some(decode) = self.decoder(&mut input, true)? else { return Ok(None) };
        if let Some(place) = place.filter(|place| place.offset > input.place.offset) {
            // The decoder may have read a header; a compressed stream cannot go back.
            input = self.open(&path, name)?;
            input.enter(&place)?;
        }
        Ok(Some((input, decode)))
    }
}
