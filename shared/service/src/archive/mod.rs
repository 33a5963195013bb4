//! The archive: where traces go that retention removes, a folder or a bucket.
//!
//! `TAILSPAN_ARCHIVE=file:///folder` or `s3://bucket/prefix`. A trace is one object, `<tenant>/<trace>.jsonl.zst`, written as [`tailspan_core::archive`] says. zstd, because calls to
//! models repeat their whole history and gzip forgets after 32 KiB; every process has it in it anyway. This module knows objects by name and nothing of traces: [`crate::log::frozen`]
//! writes and reads them.

mod folder;
mod s3;
mod spill;

use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use tailspan_core::id::{TenantId, TraceId};
use xxhash_rust::xxh3::xxh3_64;

use self::{folder::Folder, s3::Bucket};
pub use self::{
    s3::S3Config,
    spill::{Lines, Spill, Spilled, begins_archive},
};
use crate::log::now_unix_ms;

/// Where the archive is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArchiveConfig {
    Folder(PathBuf),
    S3(Box<S3Config>),
}

impl ArchiveConfig {
    /// Reads `TAILSPAN_ARCHIVE`, and for a bucket `TAILSPAN_ARCHIVE_ENDPOINT` and what AWS gives its functions: `AWS_REGION`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,
    /// `AWS_SESSION_TOKEN`.
    pub fn from_vars(
        var: &impl Fn(&str) -> Option<String>,
        mistakes: &mut Vec<String>,
    ) -> Option<Self> {
        let said = var("TAILSPAN_ARCHIVE").filter(|said| !said.trim().is_empty())?;
        let parsed = match said.split_once("://") {
            // Not made here: a folder that is missing may be a disk that is not mounted.
            Some(("file", path)) if path.starts_with('/') => match std::fs::read_dir(path) {
                Ok(_) => Ok(Self::Folder(path.into())),
                Err(error) => Err(format!("cannot read {path}: {error}")),
            },
            Some(("s3", place)) => {
                S3Config::parse(place, var).map(|config| Self::S3(Box::new(config)))
            }
            _ => Err("must be file:///folder or s3://bucket/prefix".to_owned()),
        };
        parsed
            .map_err(|mistake| mistakes.push(format!("TAILSPAN_ARCHIVE: {mistake}")))
            .ok()
    }
}

/// Why the archive did not do what was asked. It names no place and no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// It does not answer, or refuses: trying again later may help.
    #[error("the archive is unavailable: {0}")]
    Unavailable(String),
    /// More than who asks can hold.
    #[error("the archived copy has {bytes} bytes, more than {limit}")]
    TooLarge { bytes: u64, limit: u64 },
}

/// How it went last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// When it last did what it was asked, and when it last did not; milliseconds since 1970, 0 for never.
    pub well_at_unix_ms: u64,
    pub failed_at_unix_ms: u64,
}

/// The archive of a process.
pub struct Archive {
    place: Place,
    health: Mutex<Health>,
}

enum Place {
    Folder(Folder),
    Bucket(Box<Bucket>),
}

impl Archive {
    pub fn new(config: &ArchiveConfig) -> Self {
        Self {
            place: match config {
                ArchiveConfig::Folder(path) => Place::Folder(Folder::new(path.clone())),
                ArchiveConfig::S3(config) => {
                    Place::Bucket(Box::new(Bucket::new(config.as_ref().clone())))
                }
            },
            health: Mutex::default(),
        }
    }

    /// The sort of place, for a status page.
    pub fn kind(&self) -> &'static str {
        match self.place {
            Place::Folder(_) => "folder",
            Place::Bucket(_) => "s3",
        }
    }

    pub fn health(&self) -> Health {
        let health = self.health.lock();
        health.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks whether it answers, by looking for an object that nobody has.
    ///
    /// # Errors
    /// [`ArchiveError::Unavailable`].
    pub async fn ask(&self) -> Result<(), ArchiveError> {
        self.get(".tailspan-probe", 0).await.map(|_| ())
    }

    /// Writes an object, in the place of one of the same name: whole or not at all.
    ///
    /// # Errors
    /// [`ArchiveError::Unavailable`]; what was there is there still.
    pub async fn put(&self, name: &str, file: Spilled) -> Result<(), ArchiveError> {
        let done = match &self.place {
            Place::Folder(folder) => folder.put(name, file).await,
            Place::Bucket(bucket) => bucket.put(name, file).await,
        };
        self.note(done)
    }

    /// An object of at most `most` bytes. `None`: there is none.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub async fn get(&self, name: &str, most: u64) -> Result<Option<Bytes>, ArchiveError> {
        let done = match &self.place {
            Place::Folder(folder) => folder.get(name, most).await,
            Place::Bucket(bucket) => bucket.get(name, most).await,
        };
        self.note(done)
    }

    /// An object as a file, whatever its size.
    ///
    /// # Errors
    /// [`ArchiveError::Unavailable`].
    pub async fn fetch(&self, name: &str) -> Result<Option<std::fs::File>, ArchiveError> {
        let done = match &self.place {
            Place::Folder(folder) => folder.fetch(name).await,
            Place::Bucket(bucket) => bucket.fetch(name).await,
        };
        self.note(done)
    }

    /// Removes an object; one that is not there is removed.
    ///
    /// # Errors
    /// [`ArchiveError::Unavailable`].
    pub async fn remove(&self, name: &str) -> Result<(), ArchiveError> {
        let done = match &self.place {
            Place::Folder(folder) => folder.remove(name).await,
            Place::Bucket(bucket) => bucket.remove(name).await,
        };
        self.note(done)
    }

    fn note<T>(&self, done: Result<T, ArchiveError>) -> Result<T, ArchiveError> {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        match &done {
            Err(ArchiveError::Unavailable(_)) => health.failed_at_unix_ms = now_unix_ms(),
            _ => health.well_at_unix_ms = now_unix_ms(),
        }
        done
    }
}

/// What a trace's object is called. Ids are safe as names (`[A-Za-z0-9_-]`, tenants `[a-z0-9-]`); of one with capitals a hash keeps it apart from
/// the same one without, where the names of files do not tell them apart.
pub fn object_name(tenant: &TenantId, trace: &TraceId) -> String {
    let trace = trace.as_str();
    match trace.bytes().any(|byte| byte.is_ascii_uppercase()) {
        false => format!("{tenant}/{trace}.jsonl.zst"),
        true => {
            let hash = xxh3_64(trace.as_bytes());
            format!("{tenant}/{}.{hash:016x}.jsonl.zst", trace.to_lowercase())
        }
    }
}

/// An archive, or any other file, that a person names by its address: `https://`, `http://` or `s3://bucket/name`; for the command line, never for a request.
///
/// # Errors
/// Why there is none, for a person.
pub async fn fetch_url(
    url: &str,
    var: &impl Fn(&str) -> Option<String>,
    most: u64,
) -> Result<Bytes, String> {
    if let Some(place) = url.strip_prefix("s3://") {
        let (folder, name) = place.rsplit_once('/').ok_or("a bucket is no file")?;
        let bucket = Bucket::new(S3Config::parse(folder, var)?);
        let found = bucket.get(name, most).await;
        return found
            .map_err(|error| error.to_string())?
            .ok_or_else(|| "there is no such object".to_owned());
    }
    s3::download(url, most)
        .await
        .map_err(|error| error.to_string())
}

pub(crate) fn unavailable(what: &str, error: &dyn std::fmt::Display) -> ArchiveError {
    ArchiveError::Unavailable(format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(vars: &[(&str, &str)]) -> (Option<ArchiveConfig>, Vec<String>) {
        let mut mistakes = Vec::new();
        let var = |name: &str| {
            let found = vars.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let config = ArchiveConfig::from_vars(&var, &mut mistakes);
        (config, mistakes)
    }

    #[test]
    fn a_place_is_a_folder_or_a_bucket() {
        assert_eq!(parse(&[]), (None, vec![]));
        let (folder, _) = parse(&[("TAILSPAN_ARCHIVE", "file:///tmp")]);
        assert_eq!(folder, Some(ArchiveConfig::Folder("/tmp".into())));
        let keys = [("AWS_ACCESS_KEY_ID", "k"), ("AWS_SECRET_ACCESS_KEY", "s")];
        let with = |place| [keys.as_slice(), &[("TAILSPAN_ARCHIVE", place)]].concat();
        let (bucket, mistakes) = parse(&with("s3://b/some/prefix/"));
        assert_eq!(mistakes, Vec::<String>::new());
        assert!(matches!(bucket, Some(ArchiveConfig::S3(_))));
        for wrong in [
            "/var/archive",
            "file://relative",
            "s3://",
            "gs://b",
            "s3://b/../c",
            "file:///no/such/folder",
        ] {
            let (config, mistakes) = parse(&with(wrong));
            assert_eq!((config, mistakes.len()), (None, 1), "{wrong}");
        }
        let (config, mistakes) = parse(&[("TAILSPAN_ARCHIVE", "s3://b")]);
        assert_eq!((config, mistakes.len()), (None, 1));
    }

    #[test]
    fn names_differ_where_ids_do_also_without_their_case() {
        let tenant = TenantId::default();
        let name = |trace| object_name(&tenant, &TraceId::parse(trace).unwrap());
        assert_eq!(name("run-7"), "default/run-7.jsonl.zst");
        assert_ne!(name("Run-7").to_lowercase(), name("run-7"));
        assert_ne!(name("Run-7").to_lowercase(), name("rUn-7").to_lowercase());
    }
}
