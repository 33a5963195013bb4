//! Trace files on this machine: named ones, those in directories, and standard input.

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use tailspan_core::files::{self, FileError, FileTrace, Format};

/// Directories are followed so deep: a link may lead back up.
const MAX_DEPTH: usize = 16;
/// Files that directories may hold together.
const MAX_FILES: usize = 100_000;
/// Endings of trace files; a directory holds other things too.
const ENDINGS: [&str; 3] = [".json", ".jsonl", ".ndjson"];
const PACKED: [&str; 2] = [".gz", ".zst"];

/// A place to read traces from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `-`
    Stdin,
    /// A file that was named.
    File(PathBuf),
    /// A file that lies in a directory that was named.
    Found(PathBuf),
    /// Fetched by who reads it.
    Url(String),
}

impl Source {
    /// How it is called in what is printed.
    pub fn name(&self) -> String {
        match self {
            Self::Stdin => "stdin".to_owned(),
            // What stands behind the question mark may be a signature.
            Self::Url(url) => url.split('?').next().unwrap_or_default().to_owned(),
            Self::File(path) | Self::Found(path) => path.display().to_string(),
        }
    }

    /// Its bytes, at most as many as a trace file may have.
    ///
    /// # Errors
    /// It cannot be read, or is larger.
    pub fn bytes(&self) -> Result<Vec<u8>, FileError> {
        let limit = files::limits().body_bytes as u64;
        let read = || -> io::Result<Vec<u8>> {
            let mut bytes = Vec::new();
            match self {
                Self::Url(_) => return Err(io::Error::from(io::ErrorKind::Unsupported)),
                Self::Stdin => io::stdin().take(limit + 1).read_to_end(&mut bytes)?,
                Self::File(path) | Self::Found(path) => fs::File::open(path)?
                    .take(limit + 1)
                    .read_to_end(&mut bytes)?,
            };
            Ok(bytes)
        };
        let bytes = read().map_err(|error| failed(&self.name(), &error))?;
        if bytes.len() as u64 > limit {
            return Err(error(
                self.name(),
                format!("the file is larger than {limit} bytes"),
            ));
        }
        Ok(bytes)
    }

    /// The traces in it. `None`: it was not named itself, and is no trace file.
    ///
    /// # Errors
    /// It cannot be read, or what it holds is broken; the text says where.
    pub fn traces(&self, format: Option<Format>) -> Result<Option<Vec<FileTrace>>, FileError> {
        self.traces_in(&self.bytes()?, format)
    }

    /// As [`Source::traces`], of its bytes.
    ///
    /// # Errors
    /// As [`Source::traces`].
    pub fn traces_in(
        &self,
        bytes: &[u8],
        format: Option<Format>,
    ) -> Result<Option<Vec<FileTrace>>, FileError> {
        match files::read(&self.name(), bytes, format) {
            Err(error) if error.is_other && matches!(self, Self::Found(_)) => Ok(None),
            read => read.map(Some),
        }
    }

    /// What is wrong with it.
    pub fn error(&self, message: String) -> FileError {
        error(self.name(), message)
    }
}

/// What was named, directories opened: their trace files at any depth, by name, hidden ones left out.
///
/// An entry that is not there, or a directory that cannot be read, is an error in its place.
pub fn sources(named: &[PathBuf]) -> Vec<Result<Source, FileError>> {
    let mut found = Vec::new();
    for path in named {
        if path.as_os_str() == "-" {
            found.push(Ok(Source::Stdin));
        } else if path.is_dir() {
            let before = found.len();
            open(path, 0, &mut found);
            if found.len() == before {
                let message =
                    "no trace file (.json, .jsonl, .ndjson, also packed) in this directory";
                found.push(Err(error(path.display().to_string(), message.to_owned())));
            }
        } else {
            found.push(Ok(Source::File(path.clone())));
        }
    }
    found
}

fn open(directory: &Path, depth: usize, found: &mut Vec<Result<Source, FileError>>) {
    let name = || directory.display().to_string();
    if depth >= MAX_DEPTH {
        let message = format!("directories nest deeper than {MAX_DEPTH}");
        return found.push(Err(error(name(), message)));
    }
    let entries = fs::read_dir(directory).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let mut entries = match entries {
        Ok(entries) => entries,
        Err(error) => return found.push(Err(failed(&name(), &error))),
    };
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let file_name = entry.file_name();
        let file_name = file_name.to_string_lossy().to_ascii_lowercase();
        if file_name.starts_with('.') {
            continue;
        }
        let path = entry.path();
        if path.is_dir() {
            open(&path, depth + 1, found);
        } else if found.len() >= MAX_FILES {
            let message = format!("more than {MAX_FILES} trace files");
            return found.push(Err(error(name(), message)));
        } else if is_trace_file(&file_name) {
            found.push(Ok(Source::Found(path)));
        }
    }
}

fn is_trace_file(name: &str) -> bool {
    let name = PACKED
        .iter()
        .find_map(|ending| name.strip_suffix(ending))
        .unwrap_or(name);
    ENDINGS.iter().any(|ending| name.ends_with(ending))
}

fn failed(name: &str, cause: &io::Error) -> FileError {
    error(name.to_owned(), format!("cannot be read: {cause}"))
}

fn error(name: String, message: String) -> FileError {
    FileError {
        name,
        place: None,
        message,
        is_other: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_opened_and_errors_name_the_file() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir_all(at("a/b")).unwrap();
        fs::create_dir_all(at("empty")).unwrap();
        for name in [
            "a/2.json",
            "a/1.JSONL.gz",
            "a/b/3.ndjson",
            "a/read.me",
            "a/.4.json",
        ] {
            fs::write(at(name), "{\"eval_set_id\":\"no trace\"}").unwrap();
        }
        fs::write(at("a/b/5.json"), "{\"resourceSpans\":[\n1]}").unwrap();
        let found = sources(&[
            at("a"),
            at("a/2.json"),
            at("gone.json"),
            at("empty"),
            "-".into(),
        ]);
        let names: Vec<_> = found
            .iter()
            .map(|source| match source {
                Ok(source) => source
                    .name()
                    .replace(&root.path().display().to_string(), ""),
                Err(error) => error.message.clone(),
            })
            .collect();
        assert_eq!(
            names,
            [
                "/a/1.JSONL.gz",
                "/a/2.json",
                "/a/b/3.ndjson",
                "/a/b/5.json",
                "/a/2.json",
                "/gone.json",
                "no trace file (.json, .jsonl, .ndjson, also packed) in this directory",
                "stdin",
            ]
        );
        let traces = |at: usize| found[at].as_ref().unwrap().traces(None);
        assert_eq!(
            traces(1),
            Ok(None),
            "not a trace file, and nobody said it was"
        );
        assert!(
            traces(4)
                .unwrap_err()
                .message
                .starts_with("no known trace format")
        );
        let broken = traces(3).unwrap_err();
        assert_eq!(broken.place, Some((2, 1)));
        assert!(
            broken.to_string().contains("/a/b/5.json: line 2"),
            "{broken}"
        );
        assert!(traces(5).unwrap_err().message.starts_with("cannot be read"));
    }

    #[cfg(unix)]
    #[test]
    fn a_link_that_leads_back_ends_somewhere() {
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(root.path(), root.path().join("again")).unwrap();
        fs::write(root.path().join("t.json"), "{}").unwrap();
        let found = sources(&[root.path().to_owned()]);
        assert_eq!(found.len(), MAX_DEPTH + 1);
    }
}
