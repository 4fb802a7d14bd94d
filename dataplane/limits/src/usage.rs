//! The resources that this process uses, from /proc/self.

use std::ops::Range;
use std::time::Duration;

use knockplane_policy::wire::ProcessUsage;
use procfs::process::{LimitValue, Process};
use procfs::{page_size, ticks_per_second};

/// The current use of this process; `None` if /proc is not mounted. Source: proc(5).
pub fn read() -> Option<ProcessUsage> {
    let process = Process::myself().ok()?;
    let stat = process.stat().ok()?;
    let limits = process.limits().ok()?;
    Some(ProcessUsage {
        cpu: Duration::from_secs_f64((stat.utime + stat.stime) as f64 / ticks_per_second() as f64),
        resident_bytes: stat.rss * page_size(),
        virtual_bytes: stat.vsize,
        open_fds: process.fd_count().ok()? as u64,
        max_fds: match limits.max_open_files.soft_limit {
            LimitValue::Value(most) => Some(most),
            LimitValue::Unlimited => None,
        },
        threads: u64::try_from(stat.num_threads).unwrap_or_default(),
    })
}

/// Bytes of these ranges of addresses that are in huge pages; `None` if the kernel does not tell. The kernel counts
/// them for each mapping, so a mapping that is only partly in a range counts with as many as can be in it. The call
/// takes time in proportion to the memory of the process.
pub fn huge_page_bytes(memory: &[Range<usize>]) -> Option<u64> {
    let mappings = Process::myself().ok()?.smaps().ok()?;
    let in_ranges = mappings.iter().map(|mapping| {
        let (start, end) = mapping.address;
        let common = |range: &Range<usize>| end.min(range.end as u64).saturating_sub(start.max(range.start as u64));
        let huge = mapping.extension.map.get("AnonHugePages").copied().unwrap_or_default();
        huge.min(memory.iter().map(common).sum())
    });
    Some(in_ranges.sum())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::hint::black_box;

    use super::*;

    #[test]
    fn small_memory_is_in_no_huge_page() {
        let memory = black_box([0_u8; 100]);
        let start = memory.as_ptr().addr();
        let in_huge_pages =
            huge_page_bytes(std::slice::from_ref(&(start..start + memory.len()))).expect("/proc is mounted");
        assert!(in_huge_pages <= 100, "a huge page of the stack may contain it");
        assert_eq!(huge_page_bytes(&[]), Some(0));
    }

    #[test]
    fn the_use_of_the_process_is_read() {
        let before = read().expect("/proc is mounted");
        let files: Vec<_> = (0..50).map(|_| File::open("/dev/null").expect("it can be opened")).collect();
        let memory = black_box(vec![1_u8; 64 << 20]);
        let mut sum = 0_u64;
        // A tick of the kernel is 10 ms.
        while read().expect("/proc is mounted").cpu == before.cpu {
            sum = (0..1_000_000).fold(black_box(sum), u64::wrapping_add);
        }
        let after = read().expect("/proc is mounted");
        assert!(after.open_fds >= before.open_fds + 50 - 10, "{before:?} {after:?}");
        assert!(after.resident_bytes > before.resident_bytes + (32 << 20), "{before:?} {after:?}");
        assert!(after.threads >= 1 && after.virtual_bytes >= after.resident_bytes && after.max_fds > Some(0));
        drop((files, memory));
    }
}
