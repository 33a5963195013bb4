//! The product, `tailspan serve`, in a process of its own, so that its CPU time is its own.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::Parser as _;
use tailspan_local::options::{self, Cli};

/// Serves until it is killed.
pub(crate) fn run(redis_url: &str) -> Result<()> {
    let line = [
        "tailspan",
        "serve",
        "--port",
        "0",
        "--otlp-port",
        "0",
        "--redis-url",
        redis_url,
    ];
    match Cli::parse_from(line).command {
        options::Command::Serve(options) => tailspan_local::serve::run(&options),
        _ => anyhow::bail!("`serve` was asked for"),
    }
}

/// This binary as a server.
pub(crate) struct Server {
    pub(crate) address: String,
    child: Child,
}

impl Server {
    pub(crate) fn start(redis_url: &str) -> Result<Self> {
        Self::start_with(redis_url, &[])
    }

    /// With these variables too.
    pub(crate) fn start_with(redis_url: &str, variables: &[(&str, &str)]) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--serve", redis_url])
            .env("TAILSPAN_LOG", "error")
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().context("the server has an output")?;
        let mut lines = BufReader::new(stdout).lines();
        let address = lines
            .by_ref()
            .map_while(std::result::Result::ok)
            .find_map(|line| Some(line.strip_prefix("listening on http://")?.to_owned()))
            .unwrap_or_default();
        // A line for every run that ends.
        std::thread::spawn(move || lines.map_while(std::result::Result::ok).for_each(drop));
        let server = Self { address, child };
        anyhow::ensure!(!server.address.is_empty(), "the server did not start");
        Ok(server)
    }

    /// CPU time of all its threads until now, in ticks of 10 ms.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        cpu_of(&self.child)
    }

    pub(crate) fn resident_bytes(&self) -> Result<u64> {
        resident_bytes_of(&self.child)
    }
}

/// Memory that a process holds.
pub(crate) fn resident_bytes_of(child: &Child) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kibibytes: u64 = kibibytes.context("VmRSS of a process")?.trim().parse()?;
    Ok(kibibytes * 1024)
}

/// CPU time of a process's threads until now, in ticks of 10 ms.
pub(crate) fn cpu_of(child: &Child) -> Result<Duration> {
    cpu_of_process(child.id())
}

/// As [`cpu_of`], of any process.
pub(crate) fn cpu_of_process(id: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    // The name in parentheses may hold spaces; fields are counted behind it: proc(5), utime is field 14, stime 15.
    let (_, fields) = stat.rsplit_once(") ").context("a process's stat line")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let ticks = |at: usize| -> Result<u64> {
        Ok(fields.get(at).context("a process's stat line")?.parse()?)
    };
    // USER_HZ is 100 on every Linux that Rust's tier 1 covers.
    Ok(Duration::from_millis(10 * (ticks(11)? + ticks(12)?)))
}

/// As [`cpu_of_process`], of a process, all that it started and all of those that have ended.
pub(crate) fn cpu_of_tree(id: u32) -> Result<Duration> {
    let mut processes = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(id) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // One that ended meanwhile is in its parent's account.
        if let Ok(stat) = std::fs::read_to_string(format!("/proc/{id}/stat"))
            && let Some((_, fields)) = stat.rsplit_once(") ")
        {
            let fields: Vec<u64> = fields
                .split(' ')
                .skip(1)
                .map(|field| field.parse().unwrap_or_default())
                .collect();
            // Behind the state: parent, then as in `cpu_of_process` and for waited-for children (fields 16 and 17).
            let ticks = fields.get(10..14).map_or(0, |ticks| ticks.iter().sum());
            processes.push((id, fields.first().copied().unwrap_or_default(), ticks));
        }
    }
    let mut family = vec![u64::from(id)];
    let mut ticks = 0;
    let mut at = 0;
    while let Some(parent) = family.get(at).copied() {
        ticks += processes
            .iter()
            .filter(|(id, ..)| u64::from(*id) == parent)
            .map(|(.., ticks)| ticks)
            .sum::<u64>();
        family.extend(
            processes
                .iter()
                .filter(|(_, of, _)| *of == parent)
                .map(|(id, ..)| u64::from(*id)),
        );
        at += 1;
    }
    Ok(Duration::from_millis(10 * ticks))
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
