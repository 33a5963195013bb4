//! Which server program to use.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A program that speaks Redis and is new enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerProgram {
    pub path: PathBuf,
    /// As it calls itself: `redis 7.0.15`, `valkey 9.1.2`.
    pub version: String,
}

/// Finds a server: the one named by `TAILSPAN_REDIS_SERVER`, else `redis-server` or `valkey-server` on the `PATH`, else the
/// `valkey-server` that `scripts/get-valkey` put into `target/tools` (beside the running program's own directory, or the working
/// directory).
///
/// # Errors
///
/// A sentence that says what was found unfit, and what to do.
pub fn find_server() -> Result<ServerProgram, String> {
    if let Some(named) = std::env::var_os("TAILSPAN_REDIS_SERVER").filter(|name| !name.is_empty()) {
        return examine(Path::new(&named));
    }
    let mut unfit = Vec::new();
    for candidate in candidates() {
        if !candidate.is_file() {
            continue;
        }
        match examine(&candidate) {
            Ok(program) => return Ok(program),
            Err(reason) => unfit.push(reason),
        }
    }
    unfit.push(
        "install redis-server (7.0 or newer) or valkey-server, run scripts/get-valkey, name one in TAILSPAN_REDIS_SERVER, \
         or connect to a running one with --redis-url"
            .into(),
    );
    Err(unfit.join("; "))
}

fn candidates() -> Vec<PathBuf> {
    let mut candidates = Vec::new();
    let path = std::env::var_os("PATH").unwrap_or_default();
    for name in ["redis-server", "valkey-server"] {
        candidates.extend(std::env::split_paths(&path).map(|dir| dir.join(name)));
    }
    if let Ok(program) = std::env::current_exe() {
        // target/debug/tailspan and target/debug/deps/promises-... have target/tools in reach.
        let above = program.ancestors().skip(1).take(3);
        candidates.extend(above.map(|dir| dir.join("tools/valkey-server")));
    }
    candidates.push(PathBuf::from("target/tools/valkey-server"));
    candidates
}

/// Asks a program what it is.
///
/// # Errors
///
/// A sentence: it does not run, is no such server, or is too old.
pub(super) fn examine(path: &Path) -> Result<ServerProgram, String> {
    let output = Command::new(path)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{} does not run: {error}", path.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = parse_version(&text).ok_or_else(|| {
        format!(
            "{} is neither redis-server nor valkey-server",
            path.display()
        )
    })?;
    if !version.fits() {
        let name = version.to_string();
        return Err(format!(
            "{} is {name}, too old: 7.0 is needed",
            path.display()
        ));
    }
    // The server is started in another working directory. A link stays as it is: the program behind it looks at its own name
    // to know what it should be.
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    Ok(ServerProgram {
        path,
        version: version.to_string(),
    })
}

#[derive(Debug, PartialEq, Eq)]
struct Version {
    kind: &'static str,
    numbers: String,
    major: u32,
}

impl Version {
    /// Sharded channels and functions came with 7.0; Valkey began at 7.2.
    fn fits(&self) -> bool {
        self.major >= 7
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind, self.numbers)
    }
}

/// `Redis server v=7.0.15 sha=...` or `Valkey server v=9.1.2 sha=...`
fn parse_version(text: &str) -> Option<Version> {
    let kind = match text.split_whitespace().next()? {
        "Redis" => "redis",
        "Valkey" => "valkey",
        _ => return None,
    };
    let numbers = text
        .split_whitespace()
        .find_map(|word| word.strip_prefix("v="))?;
    let major = numbers.split('.').next()?.parse().ok()?;
    Some(Version {
        kind,
        numbers: numbers.to_owned(),
        major,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_a_server_says_of_itself() {
        let check =
            |text: &str| parse_version(text).map(|version| (version.to_string(), version.fits()));
        assert_eq!(
            check(
                "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=ae4d7c971a948f0"
            ),
            Some(("redis 7.0.15".into(), true))
        );
        assert_eq!(
            check(
                "Valkey server v=9.1.2 sha=00000000:1 malloc=libc bits=64 build=1536df31c0395150"
            ),
            Some(("valkey 9.1.2".into(), true))
        );
        assert_eq!(
            check("Redis server v=6.2.14 sha=0"),
            Some(("redis 6.2.14".into(), false))
        );
        assert_eq!(check("bash, version 5.2"), None);
        assert_eq!(check("Redis server v=x"), None);
        assert_eq!(check(""), None);
    }
}
