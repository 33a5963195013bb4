//! Clocks that jump by an hour, of the product and of Redis, both ways. The processes are real; libfaketime stands between them and the time of day.

use std::path::{Path, PathBuf};

use super::*;

/// The library is Debian's `faketime`; scripts/test installs it where it may.
fn library() -> Option<PathBuf> {
    let found = ["x86_64-linux-gnu", "aarch64-linux-gnu"]
        .map(|arch| PathBuf::from(format!("/usr/lib/{arch}/faketime/libfaketime.so.1")))
        .into_iter()
        .find(|path| path.is_file());
    assert!(
        found.is_some() || std::env::var_os("CI").is_none(),
        "CI needs libfaketime"
    );
    found
}

/// A clock that is set by writing a file.
struct Clock {
    file: PathBuf,
    library: PathBuf,
}

impl Clock {
    fn new(folder: &Path, name: &str, library: &Path) -> Self {
        let clock = Self {
            file: folder.join(name),
            library: library.to_owned(),
        };
        clock.set("+0");
        clock
    }

    fn set(&self, offset: &str) {
        // Whole or not at all: a file that is just being written is no time.
        let new = self.file.with_extension("new");
        std::fs::write(&new, offset).expect("written");
        std::fs::rename(&new, &self.file).expect("renamed");
    }

    fn variables(&self) -> Vec<(String, String)> {
        [
            ("LD_PRELOAD", self.library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            // Time-outs go on as they are: only the time of day jumps.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_hour_forth_and_back_loses_doubles_and_holds_nothing() {
    let Some(library) = library() else {
        eprintln!("not shown here: there is no libfaketime (apt-get install faketime)");
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let of_redis = Clock::new(folder.path(), "redis", &library);
    let of_ours = [
        Clock::new(folder.path(), "one", &library),
        Clock::new(folder.path(), "other", &library),
    ];
    // Debian's Redis brings a memory allocator that libfaketime does not get along with.
    let options = [
        "--save",
        "",
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
    ];
    let mut redis = RedisServer::of(crate::stores::fetched("get-valkey"), &options).await;
    redis.relaunch_with(of_redis.variables()).await;
    let processes: Vec<_> = of_ours
        .iter()
        .map(|clock| (ReservedPort::take(), clock))
        .map(|(port, clock)| {
            let process = Process::with(port.number, &redis.url(), clock.variables());
            (process, port)
        })
        .collect();
    let addresses: Vec<_> = processes
        .iter()
        .map(|(process, _)| SocketAddr::from(([127, 0, 0, 1], process.port)))
        .collect();
    let urls: Vec<_> = addresses
        .iter()
        .map(|address| format!("http://{address}/traces/{TRACE}/events"))
        .collect();
    let enough: Arc<AtomicU64> = Arc::default();
    let mut viewers = tokio::task::JoinSet::new();
    for _ in 0..10 {
        viewers.spawn(view(
            addresses.clone(),
            addresses.clone(),
            0,
            Arc::clone(&enough),
        ));
    }
    let writing = Writing {
        urls: urls.clone(),
        written: Arc::default(),
    };
    let mut next = 1;
    let mut stretch = async || {
        write(&writing, next, next + 199).await;
        next += 200;
    };
    stretch().await;
    // One process of two is wrong for a while, then the other way, then Redis: events go on under each.
    for (clock, offset) in [
        (&of_ours[0], "+1h"),
        (&of_ours[0], "+0"),
        (&of_ours[1], "-1h"),
        (&of_ours[1], "+0"),
        (&of_redis, "+1h"),
        (&of_redis, "-1h"),
        (&of_redis, "+0"),
    ] {
        clock.set(offset);
        stretch().await;
    }
    // All that was written last was written in the future, and then the clocks go back: the end must not wait for it.
    of_ours.iter().for_each(|clock| clock.set("+1h"));
    stretch().await;
    end_run(&urls).await;
    of_ours.iter().for_each(|clock| clock.set("+0"));
    let seen = tokio::time::timeout(Duration::from_secs(100), viewers.join_all())
        .await
        .expect("the end is told long before the hour is over");
    assert_exact(&seen, 1, next);
    assert!(seen.iter().all(|viewer| viewer.gaps.is_empty()));
    // Nothing went before its time.
    assert!(
        !redis
            .cli(&["EXISTS", "{default/faulty}:events"])
            .await
            .contains(":0")
    );
}
