//! Archives being written and read, whatever their size: packed into a file without a name, which is gone with its process, and read from there line by line.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek as _, Write as _},
};

use sha2::{Digest as _, Sha256};
use tailspan_core::archive::{Item, Reader};
use zstd::stream::{read::Decoder, write::Encoder};

/// So far back repeats are found, as a power of two: a call's history is found in the call before it.
const WINDOW_LOG: u32 = 23;
const LEVEL: i32 = 3;
/// Bytes of a line: those of the largest event that is taken in, written as JSON.
const LONGEST_LINE: u64 = 128 << 20;

/// Lines on their way into a file.
pub struct Spill {
    encoder: Encoder<'static, Hashing>,
}

/// A file that is whole.
#[derive(Debug)]
pub struct Spilled {
    pub file: File,
    pub bytes: u64,
    pub sha256: [u8; 32],
}

struct Hashing {
    file: File,
    bytes: u64,
    hash: Sha256,
}

impl io::Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.bytes += written as u64;
        self.hash.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Spill {
    /// # Errors
    /// No file can be made in the folder for temporary ones.
    pub fn new() -> io::Result<Self> {
        let hashing = Hashing {
            file: tempfile::tempfile()?,
            bytes: 0,
            hash: Sha256::new(),
        };
        let mut encoder = Encoder::new(hashing, LEVEL)?;
        encoder.include_checksum(true)?;
        encoder.long_distance_matching(true)?;
        encoder.window_log(WINDOW_LOG)?;
        Ok(Self { encoder })
    }

    /// # Errors
    /// The disk is full, or worse.
    pub fn write(&mut self, text: &str) -> io::Result<()> {
        self.encoder.write_all(text.as_bytes())
    }

    /// Ends the file, and reads it once as it will be read: what cannot be read again is no archive.
    ///
    /// # Errors
    /// The disk is full, or what is on it is not what was written.
    pub fn finish(self) -> io::Result<Spilled> {
        let Hashing {
            mut file,
            bytes,
            hash,
        } = self.encoder.finish()?;
        file.flush()?;
        let mut lines = Lines::of_file(file.try_clone()?, u64::MAX)?;
        while lines.read_next()?.is_some() {}
        Ok(Spilled {
            file,
            bytes,
            sha256: hash.finalize().into(),
        })
    }
}

/// The items of an archive, packed or not.
pub struct Lines<R: Read> {
    from: BufReader<Unpacked<R>>,
    reader: Reader,
    line: Vec<u8>,
    /// Bytes that may still come.
    left: u64,
    /// The text of the lines that the last item was made of, for who copies them.
    pub text: String,
}

enum Unpacked<R: Read> {
    Plain(BufReader<R>),
    Zstd(Box<Decoder<'static, BufReader<R>>>),
}

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(from) => from.read(buffer),
            Self::Zstd(from) => from.read(buffer),
        }
    }
}

impl Lines<File> {
    /// Reads a file from its beginning.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn of_file(mut file: File, most: u64) -> io::Result<Self> {
        file.rewind()?;
        Self::unpacking(file, most)
    }
}

impl<R: Read> Lines<R> {
    /// Reads from the beginning of an archive, which unpacked may have so many bytes.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn unpacking(from: R, most: u64) -> io::Result<Self> {
        let mut from = BufReader::new(from);
        let is_zstd = from.fill_buf()?.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
        let from = match is_zstd {
            false => Unpacked::Plain(from),
            true => Unpacked::Zstd(Box::new(Decoder::with_buffer(from)?)),
        };
        Ok(Self {
            from: BufReader::new(from),
            reader: Reader::default(),
            line: Vec::new(),
            left: most,
            text: String::new(),
        })
    }

    /// What comes next; `None` at the end of a file that is whole.
    ///
    /// # Errors
    /// `InvalidData`: it is no archive, or damaged, cut or too large, with why. Others: it cannot be read.
    pub fn read_next(&mut self) -> io::Result<Option<Item>> {
        let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
        self.text.clear();
        loop {
            self.line.clear();
            let most = self.left.min(LONGEST_LINE);
            let mut from = (&mut self.from).take(most.saturating_add(1));
            let read = from.read_until(b'\n', &mut self.line)? as u64;
            if read > most {
                return Err(invalid("it is larger than what is read".to_owned()));
            }
            self.left -= read;
            if read == 0 {
                let finished = self.reader.finish();
                return finished
                    .map(|()| None)
                    .map_err(|error| invalid(error.to_string()));
            }
            let line =
                std::str::from_utf8(&self.line).map_err(|error| invalid(error.to_string()))?;
            self.text.push_str(line);
            let item = self.reader.line(line.trim_end_matches(['\n', '\r']));
            if let Some(item) = item.map_err(|error| invalid(error.to_string()))? {
                return Ok(Some(item));
            }
        }
    }
}

/// Is this the beginning of an archive, packed or not?
pub fn begins_archive(bytes: &[u8]) -> bool {
    let begins = tailspan_core::archive::BEGINS.as_bytes();
    if !bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        return bytes.starts_with(begins);
    }
    let mut start = vec![0; begins.len()];
    Decoder::new(bytes)
        .and_then(|mut unpacked| unpacked.read_exact(&mut start))
        .is_ok_and(|()| start == begins)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use tailspan_core::{
        archive::{self, Header},
        id::{TenantId, TraceId},
    };

    #[test]
    fn what_is_packed_is_read_again_and_what_is_cut_is_not() {
        let trace = TraceId::parse("t").unwrap();
        let header = Header::new(&TenantId::default(), &trace, BTreeMap::new(), vec![]);
        let mut spill = Spill::new().unwrap();
        spill.write(&header.line()).unwrap();
        spill.write(&archive::identity_lines(&[1, 2])).unwrap();
        spill.write(&archive::end_line(0)).unwrap();
        let spilled = spill.finish().unwrap();
        let mut bytes = Vec::new();
        let mut file = spilled.file;
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, spilled.bytes);
        assert!(begins_archive(&bytes) && !begins_archive(b"{}") && !begins_archive(b""));
        for kept in 0..bytes.len() {
            let mut lines = Lines::unpacking(&bytes[..kept], 1 << 20);
            let read = lines.as_mut().map(|lines| {
                loop {
                    match lines.read_next() {
                        Ok(Some(_)) => {}
                        other => return other.is_ok(),
                    }
                }
            });
            assert!(!matches!(read, Ok(true)), "{kept}");
        }
        // More than was expected.
        let mut lines = Lines::unpacking(bytes.as_slice(), 8).unwrap();
        assert!(lines.read_next().is_err());
        // Not finished.
        assert!(Spill::new().unwrap().finish().is_err());
    }
}
