//! Packs the built dashboard into the program, or nothing where it was not built: `cargo build` needs no Node.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use flate2::Compression;
use flate2::write::GzEncoder;

fn main() -> io::Result<()> {
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join("../../dashboard/dist");
    let out = PathBuf::from(variable("OUT_DIR")?);
    // The folder is in the repository, empty: a path that is not there would make Cargo run this every time.
    println!("cargo:rerun-if-changed={}", root.display());
    println!("cargo:rerun-if-changed=build.rs");

    let mut table = String::from("&[\n");
    for (number, file) in files(&root)?.into_iter().enumerate() {
        let whole = fs::canonicalize(&file)?;
        let packed = out.join(format!("{number}.gz"));
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        gzip.write_all(&fs::read(&whole)?)?;
        fs::write(&packed, gzip.finish()?)?;
        let path = file.strip_prefix(&root).map_err(io::Error::other)?;
        let path = path.to_string_lossy().replace('\\', "/");
        writeln!(
            table,
            "    ({path:?}, include_bytes!({whole:?}), include_bytes!({packed:?})),"
        )
        .map_err(io::Error::other)?;
    }
    table.push(']');
    fs::write(out.join("dashboard.rs"), table)
}

/// All files of the folder and those in it, by name; none when there is no such folder. Names that begin with a dot are not for serving.
fn files(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with('.') {
                continue;
            }
            match entry.file_type()?.is_dir() {
                true => folders.push(entry.path()),
                false => found.push(entry.path()),
            }
        }
    }
    found.sort();
    Ok(found)
}

fn variable(name: &str) -> io::Result<String> {
    env::var(name).map_err(io::Error::other)
}
