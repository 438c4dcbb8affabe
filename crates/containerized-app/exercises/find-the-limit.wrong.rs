// caught by: limits::
    /// Reads them below the folder where control groups are mounted. `groups` is `/proc/self/cgroup`: lines such as
    /// `0::/app` (version 2) and `4:memory:/app` (version 1).
    pub fn read(mounted: &Path, groups: &str) -> Self {
        let mut limits = Self::default();
        for line in groups.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else { continue };
            // The mistake: a group above may have a smaller limit.
            if let Some(folder) = folders(mounted, controllers, group).first() {
                limits = limits.and(Self { memory: memory(folder), cpus: cpus(folder) });
            }
        }
        limits
    }
