//! The files of a bug report: packed. What is in them, [`crate::debug`] knows.

use std::io::{Cursor, Write as _};

use zip::{ZipWriter, write::SimpleFileOptions};

/// An archive that is written.
pub(crate) struct Packer(ZipWriter<Cursor<Vec<u8>>>);

impl Packer {
    pub(crate) fn new() -> Self {
        Self(ZipWriter::new(Cursor::default()))
    }

    /// Adds a file.
    ///
    /// # Errors
    /// A name that is too long, or more than the format holds.
    pub(crate) fn add(&mut self, name: &str, content: &[u8]) -> Result<(), String> {
        let options = SimpleFileOptions::default();
        let started = self.0.start_file(name, options);
        started.map_err(|error| error.to_string())?;
        self.0.write_all(content).map_err(|error| error.to_string())
    }

    /// The archive's bytes.
    ///
    /// # Errors
    /// More than the format holds.
    pub(crate) fn finish(self) -> Result<Vec<u8>, String> {
        let finished = self.0.finish().map_err(|error| error.to_string())?;
        Ok(finished.into_inner())
    }
}
