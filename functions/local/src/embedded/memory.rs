//! How much memory the private Redis may take.

const GIB: u64 = 1 << 30;

/// A quarter of the memory that this process may use (the machine's, or its control group's if that is less), at most 2 GiB and
/// at least 64 MiB; 1 GiB where the platform does not say.
#[must_use]
pub fn default_max_memory_bytes() -> u64 {
    let machine = std::fs::read_to_string("/proc/meminfo").ok();
    let group = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    bound(
        machine.as_deref().and_then(parse_meminfo),
        group.as_deref().and_then(parse_group_max),
    )
}

fn bound(machine_bytes: Option<u64>, group_bytes: Option<u64>) -> u64 {
    match machine_bytes.into_iter().chain(group_bytes).min() {
        Some(bytes) => (bytes / 4).clamp(GIB / 16, 2 * GIB),
        None => GIB,
    }
}

/// `MemTotal:       24545680 kB`
fn parse_meminfo(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// Bytes, or the word `max` for no limit.
fn parse_group_max(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_a_quarter_of_what_there_is_within_bounds() {
        assert_eq!(bound(Some(24 * GIB), None), 2 * GIB);
        assert_eq!(bound(Some(4 * GIB), None), GIB);
        assert_eq!(bound(Some(24 * GIB), Some(GIB)), GIB / 4);
        assert_eq!(bound(Some(GIB / 100), None), GIB / 16);
        assert_eq!(bound(None, None), GIB);
    }

    #[test]
    fn reads_the_kernels_files() {
        assert_eq!(
            parse_meminfo("MemTotal:       1024 kB\nMemFree: 1 kB\n"),
            Some(1 << 20)
        );
        assert_eq!(parse_meminfo("nothing"), None);
        assert_eq!(parse_group_max("max\n"), None);
        assert_eq!(parse_group_max("4096\n"), Some(4096));
    }
}
