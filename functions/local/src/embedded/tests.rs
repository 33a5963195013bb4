use super::*;

fn options(data_dir: &Path) -> Options {
    Options {
        data_dir: data_dir.to_owned(),
        server: None,
        max_memory_bytes: Some(64 << 20),
    }
}

fn socket(embedded: &Embedded) -> PathBuf {
    embedded.supervised.socket.clone()
}

fn append(embedded: &Embedded, value: &str) -> io::Result<String> {
    ask(&socket(embedded), &format!("RPUSH log {value}"))
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "waited in vain: {what}"
        );
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_second_start_says_who_holds_the_data() {
    let dir = tempfile::tempdir().unwrap();
    let first = Embedded::start(&options(dir.path())).unwrap();
    first.describe_holder(", listening on http://127.0.0.1:8001");

    let refused = Embedded::start(&options(dir.path())).unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!(
            "data directory {} is in use by process {}, listening on http://127.0.0.1:8001",
            dir.path().display(),
            std::process::id()
        )
    );
    assert!(append(&first, "still-alive").unwrap().starts_with(":1"));
}

#[test]
fn a_killed_server_is_back_at_once_with_every_acknowledged_write() {
    let dir = tempfile::tempdir().unwrap();
    let embedded = Embedded::start(&options(dir.path())).unwrap();
    let mut acknowledged = 0;
    for round in 1..=5 {
        for _ in 0..20 {
            if append(&embedded, "x").is_ok_and(|answer| answer.starts_with(':')) {
                acknowledged += 1;
            }
        }
        let pid = embedded.server_pid().and_then(to_pid).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
        until("the next server", || {
            embedded.restarts() == round && embedded.await_answer()
        });
    }
    let length = ask(&socket(&embedded), "LLEN log").unwrap();
    assert_eq!(length.trim(), format!(":{acknowledged}"));
    assert_eq!(acknowledged, 100);
}

#[test]
fn stopping_and_starting_keeps_the_data_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let first = Embedded::start(&options(dir.path())).unwrap();
    let run_dir = socket(&first).parent().unwrap().to_owned();
    let pid = first.server_pid().unwrap();
    append(&first, "x").unwrap();
    first.stop();
    assert!(!run_dir.exists());
    assert!(!Path::new(&format!("/proc/{pid}")).exists());

    let second = Embedded::start(&options(dir.path())).unwrap();
    assert_eq!(ask(&socket(&second), "LLEN log").unwrap().trim(), ":1");
    assert_eq!(second.restarts(), 0);
}

/// What a process killed on a system without parent-death signals leaves behind: a server on the data, holding its lock.
fn leave_a_survivor(data_dir: &Path) -> (Child, PathBuf) {
    let redis_dir = data_dir.join("redis");
    make_private_dir(&redis_dir).unwrap();
    let lock = open_lock(&redis_dir.join("lock")).unwrap();
    lock.try_lock().unwrap();
    let run_dir = make_run_dir(&redis_dir).unwrap().keep();
    let socket = run_dir.join("s");
    let server = find_server().unwrap().path;
    let child = Command::new(server)
        .args([
            "--port",
            "0",
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
            "--save",
            "",
        ])
        .args(["--aof-use-rdb-preamble", "no", "--unixsocket"])
        .arg(&socket)
        .current_dir(&redis_dir)
        .stdin(Stdio::from(lock))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    write_run_record(&redis_dir, &socket, Some(child.id())).unwrap();
    until("the survivor", || ask(&socket, "PING").is_ok());
    (child, socket)
}

#[test]
fn a_survivor_is_shut_down_before_a_new_server_starts_on_its_data() {
    let dir = tempfile::tempdir().unwrap();
    let (mut survivor, survivors_socket) = leave_a_survivor(dir.path());
    ask(&survivors_socket, "RPUSH log x").unwrap();

    let embedded = Embedded::start(&options(dir.path())).unwrap();
    assert!(survivor.try_wait().unwrap().is_some());
    assert_eq!(ask(&socket(&embedded), "LLEN log").unwrap().trim(), ":1");
    assert!(!survivors_socket.exists());
}

#[test]
fn a_survivor_that_listens_no_more_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let (mut survivor, survivors_socket) = leave_a_survivor(dir.path());
    ask(&survivors_socket, "RPUSH log x").unwrap();
    kill_process(to_pid(survivor.id()).unwrap(), Signal::STOP).unwrap();

    let embedded = Embedded::start(&options(dir.path())).unwrap();
    assert_eq!(ask(&socket(&embedded), "LLEN log").unwrap().trim(), ":1");
    survivor.wait().unwrap();
}

#[test]
fn a_server_that_cannot_start_is_quoted() {
    let dir = tempfile::tempdir().unwrap();
    Embedded::start(&options(dir.path())).unwrap().stop();
    let base = dir
        .path()
        .join("redis/appendonlydir/appendonly.aof.1.base.aof");
    std::fs::write(base, "not the log of any server\r\n").unwrap();

    let error = Embedded::start(&options(dir.path())).unwrap_err();
    assert!(matches!(error, StartError::Ended { .. }), "{error}");
    assert!(error.to_string().contains("Bad file format"), "{error}");
}

#[test]
fn a_program_that_is_no_server_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let error = Embedded::start(&Options {
        server: Some("/bin/true".into()),
        ..options(dir.path())
    })
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "no server found: /bin/true is neither redis-server nor valkey-server"
    );
}

impl Embedded {
    fn await_answer(&self) -> bool {
        ask(&self.supervised.socket, "PING").is_ok_and(|answer| answer.starts_with("+PONG"))
    }
}
