//! A Redis of our own, and a client that does nothing but write a command and read its reply: what bare means here.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

/// A child `redis-server` without persistence.
pub(crate) struct Store {
    port: u16,
    child: Child,
    _dir: TempDir,
}

impl Store {
    pub(crate) fn start() -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let dir = tempfile::tempdir()?;
        let binary =
            std::env::var("TAILSPAN_REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
        let child = Command::new(&binary)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no", "--dir"])
            .arg(dir.path())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("failed to start {binary}"))?;
        let store = Self {
            port,
            child,
            _dir: dir,
        };
        for _ in 0..1_000 {
            if let Ok(mut client) = store.client()
                && client.command(&[b"PING"]).is_ok()
            {
                return Ok(store);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        bail!("{binary} does not answer on port {port}")
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn client(&self) -> Result<Client> {
        let socket = TcpStream::connect(("127.0.0.1", self.port))?;
        socket.set_nodelay(true)?;
        Ok(Client {
            reader: BufReader::with_capacity(1 << 16, socket),
        })
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One connection, one command at a time.
pub(crate) struct Client {
    reader: BufReader<TcpStream>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    Nil,
    Int(i64),
    Bytes(Vec<u8>),
    List(Vec<Answer>),
}

impl Answer {
    pub(crate) fn int(&self) -> i64 {
        match self {
            Self::Int(number) => *number,
            _ => 0,
        }
    }

    pub(crate) fn list(self) -> Vec<Self> {
        match self {
            Self::List(items) => items,
            _ => Vec::new(),
        }
    }

    pub(crate) fn text(&self) -> String {
        match self {
            Self::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            _ => String::new(),
        }
    }
}

fn encoded(words: &[&[u8]]) -> Vec<u8> {
    let mut request = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        request.extend(format!("${}\r\n", word.len()).bytes());
        request.extend_from_slice(word);
        request.extend(b"\r\n");
    }
    request
}

impl Client {
    pub(crate) fn command(&mut self, words: &[&[u8]]) -> Result<Answer> {
        self.reader.get_mut().write_all(&encoded(words))?;
        self.answer()
    }

    /// Several commands, of which the answers are read when all are sent.
    pub(crate) fn pipeline(&mut self, commands: &[Vec<&[u8]>]) -> Result<()> {
        let requests: Vec<u8> = commands.iter().flat_map(|words| encoded(words)).collect();
        self.reader.get_mut().write_all(&requests)?;
        for _ in commands {
            self.answer()?;
        }
        Ok(())
    }

    /// RESP2, from our own child: nothing nests deeper than a stream's entries.
    fn answer(&mut self) -> Result<Answer> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        let line = line.trim_end();
        let (kind, rest) = line.split_at_checked(1).context("redis hung up")?;
        Ok(match kind {
            "+" => Answer::Bytes(rest.as_bytes().to_vec()),
            ":" => Answer::Int(rest.parse()?),
            "$" => match usize::try_from(rest.parse::<i64>()?) {
                Ok(length) => {
                    let mut bytes = vec![0; length + 2];
                    self.reader.read_exact(&mut bytes)?;
                    bytes.truncate(length);
                    Answer::Bytes(bytes)
                }
                Err(_) => Answer::Nil,
            },
            "*" => match usize::try_from(rest.parse::<i64>()?) {
                Ok(items) => Answer::List(
                    (0..items)
                        .map(|_| self.answer())
                        .collect::<Result<Vec<_>>>()?,
                ),
                Err(_) => Answer::Nil,
            },
            _ => bail!("redis refused: {rest}"),
        })
    }

    fn info(&mut self, section: &str, field: &str) -> Result<f64> {
        let text = self.command(&[b"INFO", section.as_bytes()])?.text();
        text.lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':')?.parse().ok())
            .with_context(|| format!("redis does not tell its {field}"))
    }

    /// CPU time of the server until now.
    pub(crate) fn cpu(&mut self) -> Result<Duration> {
        let seconds = self.info("cpu", "used_cpu_user")? + self.info("cpu", "used_cpu_sys")?;
        Ok(Duration::from_secs_f64(seconds))
    }

    /// Bytes its allocator handed out.
    pub(crate) fn used_memory(&mut self) -> Result<f64> {
        self.info("memory", "used_memory")
    }

    /// `MEMORY USAGE` of every key that holds `part` in its name, with the key's name.
    pub(crate) fn memory_of(&mut self, part: &str) -> Result<Vec<(String, i64)>> {
        let keys = self
            .command(&[b"KEYS", format!("*{part}*").as_bytes()])?
            .list();
        keys.iter()
            .map(|key| {
                let key = key.text();
                let bytes =
                    self.command(&[b"MEMORY", b"USAGE", key.as_bytes(), b"SAMPLES", b"0"])?;
                Ok((key, bytes.int()))
            })
            .collect()
    }
}
