//! The archive as a folder of files.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
    sync::Once,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::{ArchiveError, Spilled, unavailable};
use crate::log::beside;

/// Files that are being written; what is older than a day was left by who died over it.
const PARTS: &str = ".parts";
const PARTS_KEPT: Duration = Duration::from_secs(24 * 3600);

pub(super) struct Folder {
    root: PathBuf,
    tidied: std::sync::Arc<Once>,
}

impl Folder {
    pub(super) fn new(root: PathBuf) -> Self {
        Self {
            root,
            tidied: std::sync::Arc::new(Once::new()),
        }
    }

    /// Written beside, read again, and then named: a crash leaves no half of a file under a name that counts.
    pub(super) async fn put(&self, name: &str, file: Spilled) -> Result<(), ArchiveError> {
        let (root, target) = (self.root.clone(), self.root.join(name));
        let tidied = std::sync::Arc::clone(&self.tidied);
        self.run("write", move || {
            let parts = root.join(PARTS);
            let folder = target.parent().unwrap_or(&root);
            // The root itself is not made: what is missing may be a disk.
            for made in [parts.as_path(), folder] {
                match fs::create_dir(made) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                        return Err(error);
                    }
                    _ => {}
                }
            }
            tidied.call_once(|| tidy(&parts));
            let part = parts.join(format!("{:016x}", rand::random::<u64>()));
            let written = write(&part, file).and_then(|()| {
                fs::rename(&part, &target)?;
                // The name is on the disk only when the folder is.
                File::open(folder)?.sync_all()
            });
            if written.is_err() {
                let _ = fs::remove_file(&part);
            }
            written
        })
        .await
    }

    pub(super) async fn get(&self, name: &str, most: u64) -> Result<Option<Bytes>, ArchiveError> {
        let Some(file) = self.fetch(name).await? else {
            return Ok(None);
        };
        let bytes = file
            .metadata()
            .map_err(|error| unavailable("read", &error))?;
        let bytes = bytes.len();
        if bytes > most {
            return Err(ArchiveError::TooLarge { bytes, limit: most });
        }
        self.run("read", move || {
            let mut all = Vec::new();
            file.take(most).read_to_end(&mut all)?;
            Ok(Some(Bytes::from(all)))
        })
        .await
    }

    pub(super) async fn fetch(&self, name: &str) -> Result<Option<File>, ArchiveError> {
        let path = self.root.join(name);
        let root = self.root.clone();
        self.run("read", move || match File::open(path) {
            Ok(file) => Ok(Some(file)),
            // A folder that is not there is not an archive without this trace: it may not be mounted.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::metadata(root).map(|_| None)
            }
            Err(error) => Err(error),
        })
        .await
    }

    pub(super) async fn remove(&self, name: &str) -> Result<(), ArchiveError> {
        let path = self.root.join(name);
        self.run("remove", move || match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        what: &str,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, ArchiveError> {
        let done = beside(work).await;
        let done = done.map_err(|error| unavailable(what, &error))?;
        done.map_err(|error| unavailable(what, &error))
    }
}

fn write(part: &Path, file: Spilled) -> io::Result<()> {
    let Spilled {
        mut file,
        bytes,
        sha256,
    } = file;
    let options = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(part);
    let mut written = options?;
    file.rewind()?;
    io::copy(&mut file, &mut written)?;
    written.flush()?;
    written.sync_all()?;
    // What the disk has, not what was meant.
    written.rewind()?;
    let (mut hash, mut buffer, mut read) = (Sha256::new(), vec![0; 64 * 1024], 0);
    loop {
        let some = written.read(&mut buffer)?;
        if some == 0 {
            break;
        }
        read += some as u64;
        hash.update(buffer.get(..some).unwrap_or_default());
    }
    match read == bytes && hash.finalize().as_slice() == sha256 {
        true => Ok(()),
        false => Err(io::Error::other("what was written is not what is there")),
    }
}

/// Losing the race to another process, or the file's age, costs a file until the next start.
fn tidy(parts: &Path) {
    let old = SystemTime::now().checked_sub(PARTS_KEPT);
    let Some((entries, old)) = fs::read_dir(parts).ok().zip(old) else {
        return;
    };
    for entry in entries.flatten() {
        let written = entry.metadata().and_then(|of| of.modified());
        if written.is_ok_and(|at| at < old) {
            let _ = fs::remove_file(entry.path());
        }
    }
}
