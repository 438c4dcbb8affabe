//! How much memory and how many cores does the kernel allow this process? `/proc/meminfo` and the number of cores are those
//! of the whole machine, also inside a container.
//!
//! A limit is in a file of the control group, at another place in version 1 and in version 2; on some machines both are
//! mounted. A group is also limited by the groups above it. So we read all places and take the smallest limit.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// What this process may use. `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// In bytes.
    pub memory: Option<u64>,
    /// In cores: 0.5 is half the time of one.
    pub cpus: Option<f64>,
}

/// Version 1 says "no limit" with a huge number.
const NO_LIMIT: u64 = 1 << 60;

impl Limits {
    /// Those of this process.
    pub fn of_this_process() -> Self {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self::read(Path::new("/sys/fs/cgroup"), &groups)
    }

    // ANCHOR: limits
    /// Reads them below the folder where control groups are mounted. `groups` is `/proc/self/cgroup`: lines such as
    /// `0::/app` (version 2) and `4:memory:/app` (version 1).
    pub fn read(mounted: &Path, groups: &str) -> Self {
        let mut limits = Self::default();
        for line in groups.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else { continue };
            for folder in folders(mounted, controllers, group) {
                limits = limits.and(Self { memory: memory(&folder), cpus: cpus(&folder) });
            }
        }
        limits
    }
    // ANCHOR_END: limits

    fn and(self, other: Self) -> Self {
        Self {
            memory: self.memory.into_iter().chain(other.memory).min(),
            cpus: self.cpus.into_iter().chain(other.cpus).min_by(f64::total_cmp),
        }
    }

    /// How many threads can do work at the same time.
    pub fn workers(self, cores: usize) -> usize {
        let allowed = self.cpus.map_or(cores, |cpus| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a few cores"
            )]
            let whole = cpus.ceil().max(1.0) as usize;
            whole
        });
        allowed.clamp(1, cores.max(1))
    }
}

/// The folder of the group and of all groups above it. Inside a container the path may be the one that the host sees, which
/// is not there; then the mounted folder itself is the container's group.
fn folders(mounted: &Path, controllers: &str, group: &str) -> Vec<PathBuf> {
    let roots = match controllers {
        "" => vec![mounted.to_owned(), mounted.join("unified")],
        names => names.split(',').map(|name| mounted.join(name)).collect(),
    };
    let above = Path::new(group.trim_start_matches('/')).ancestors();
    let above: Vec<_> = above.map(Path::to_owned).collect();
    roots.iter().flat_map(|root| above.iter().map(|group| root.join(group))).collect()
}

fn memory(folder: &Path) -> Option<u64> {
    let read = |name| fs::read_to_string(folder.join(name)).ok()?.trim().parse().ok();
    read("memory.max").or_else(|| read("memory.limit_in_bytes")).filter(|limit| *limit < NO_LIMIT)
}

fn cpus(folder: &Path) -> Option<f64> {
    let read = |name| fs::read_to_string(folder.join(name)).ok();
    let (quota, period) = match read("cpu.max") {
        Some(text) => {
            let (quota, period) = text.trim().split_once(' ')?;
            (quota.to_owned(), period.to_owned())
        }
        None => (read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?),
    };
    // "max" and -1 are no limit.
    let quota: f64 = quota.trim().parse().ok().filter(|quota| *quota > 0.0)?;
    let period: f64 = period.trim().parse().ok().filter(|period| *period > 0.0)?;
    Some(quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounted(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    #[test]
    fn the_limits_are_found_in_version_2_in_version_1_and_where_both_are_mounted() {
        let two = [("app/memory.max", "67108864\n"), ("app/cpu.max", "50000 100000\n")];
        let one = [
            ("memory/app/memory.limit_in_bytes", "67108864\n"),
            ("cpu,cpuacct/app/cpu.cfs_quota_us", "-1\n"),
            ("cpu/app/cpu.cfs_quota_us", "50000\n"),
            ("cpu/app/cpu.cfs_period_us", "100000\n"),
        ];
        let both = [one.as_slice(), &[("unified/app/memory.max", "max\n")]].concat();
        let lines = "12:cpu,cpuacct:/app\n4:memory:/app\n";
        for (files, groups) in [
            (two.as_slice(), "0::/app\n".to_owned()),
            (one.as_slice(), lines.to_owned()),
            (both.as_slice(), format!("{lines}0::/app\n")),
        ] {
            let folder = mounted(files);
            let limits = Limits::read(folder.path(), &groups);
            assert_eq!(limits, Limits { memory: Some(64 << 20), cpus: Some(0.5) }, "{groups}");
        }
    }

    #[test]
    fn the_smallest_limit_of_all_groups_above_counts() {
        let folder = mounted(&[
            ("memory.max", "max\n"),
            ("pod/memory.max", "100\n"),
            ("pod/app/memory.max", "200\n"),
        ]);
        assert_eq!(Limits::read(folder.path(), "0::/pod/app\n").memory, Some(100));
    }

    #[test]
    fn inside_a_container_the_hosts_path_is_not_there_and_the_mounted_folder_counts() {
        let folder = mounted(&[("memory/memory.limit_in_bytes", "100\n")]);
        assert_eq!(Limits::read(folder.path(), "4:memory:/docker/0123\n").memory, Some(100));
    }

    #[test]
    fn what_says_no_limit_or_nonsense_is_no_limit() {
        let folder = mounted(&[
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory.max", "plenty\n"),
            ("cpu.max", "max 100000\n"),
        ]);
        let groups = "4:memory:/\n0::/\nnonsense\n\n";
        assert_eq!(Limits::read(folder.path(), groups), Limits::default());
    }

    #[test]
    fn half_a_core_is_worth_one_thread_and_no_limit_is_worth_all_cores() {
        let workers = |cpus| Limits { cpus, ..Limits::default() }.workers(8);
        assert_eq!([Some(0.5), Some(1.5), Some(64.0), None].map(workers), [1, 2, 8, 8]);
    }
}
