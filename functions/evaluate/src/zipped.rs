//! The files of a bug report: packed, and unpacked within bounds. What is in them, [`crate::debug`] knows.

use std::{
    collections::BTreeMap,
    io::{Cursor, Read as _, Write as _},
};

use zip::{ZipArchive, ZipWriter, write::SimpleFileOptions};

/// Files in an archive that is read.
const MOST_FILES: usize = 10_000;
/// Why an archive cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// It is none, or it is broken.
    Broken,
    /// It holds more than is taken.
    TooLarge,
}

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

/// The files of which `wanted` says that they are, by their names; at most `most_bytes` of all together.
///
/// # Errors
/// [`Unreadable`]; what is unpacked is counted as it comes, for what an archive says of its sizes may be untrue.
pub(crate) fn unpack(
    bytes: &[u8],
    most_bytes: u64,
    wanted: impl Fn(&str) -> bool,
) -> Result<BTreeMap<String, Vec<u8>>, Unreadable> {
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|_| Unreadable::Broken)?;
    if archive.len() > MOST_FILES {
        return Err(Unreadable::TooLarge);
    }
    let mut files = BTreeMap::new();
    let mut left = most_bytes;
    for at in 0..archive.len() {
        let file = archive.by_index(at).map_err(|_| Unreadable::Broken)?;
        // What has no name that can be read is none of ours.
        let name = file.name().map(|name| name.into_owned()).ok();
        let Some(name) = name.filter(|name| wanted(name)) else {
            continue;
        };
        let mut content = Vec::new();
        let read = file.take(left + 1).read_to_end(&mut content);
        let read = read.map_err(|_| Unreadable::Broken)? as u64;
        left = left.checked_sub(read).ok_or(Unreadable::TooLarge)?;
        files.insert(name, content);
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_out_again() {
        let mut packer = Packer::new();
        packer.add("a/one.json", b"[1]").unwrap();
        packer.add("a/two.txt", "zwei".as_bytes()).unwrap();
        let bytes = packer.finish().unwrap();
        let files = unpack(&bytes, 100, |name| name.ends_with(".json")).unwrap();
        let expected = BTreeMap::from([("a/one.json".to_owned(), b"[1]".to_vec())]);
        assert_eq!(files, expected);
        for broken in [&b"no archive"[..], &bytes[..bytes.len() / 2], b""] {
            assert_eq!(unpack(broken, 100, |_| true), Err(Unreadable::Broken));
        }
    }

    #[test]
    fn an_archive_that_unpacks_to_more_than_is_taken_is_refused() {
        let mut packer = Packer::new();
        let zeros = vec![0; 100_000];
        for number in 0..10 {
            packer.add(&format!("{number}"), &zeros).unwrap();
        }
        let bytes = packer.finish().unwrap();
        assert!(bytes.len() < 10_000);
        assert_eq!(unpack(&bytes, 999_999, |_| true), Err(Unreadable::TooLarge));
        assert_eq!(
            unpack(&bytes, 999_999, |name| name == "7").unwrap().len(),
            1
        );
    }
}
