//! 2 MiB hugepages for the time of a bench: reserved where too few are free, mounted where no hugetlbfs is, and
//! both given back when the guard goes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::run;

const PAGES: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";

/// What was reserved and mounted.
#[derive(Debug)]
pub struct Hugepages {
    /// Pages before, if some were added.
    before: Option<u64>,
    mounted: Option<PathBuf>,
}

impl Hugepages {
    /// Sees to `wanted` free pages and a hugetlbfs, mounted at `mount_point` if there is none.
    ///
    /// # Errors
    /// Why there are none, for people; nothing is left changed.
    pub fn reserve(wanted: u64, mount_point: &Path) -> Result<Self, String> {
        let mut guard = Self { before: None, mounted: None };
        let (total, free) = (count("nr_hugepages")?, count("free_hugepages")?);
        if free < wanted {
            guard.before = Some(total);
            set(total + wanted - free)?;
            let free = count("free_hugepages")?;
            if free < wanted {
                return Err(format!("the kernel has memory for {free} of {wanted} hugepages of 2 MiB"));
            }
        }
        let mounts = fs::read_to_string("/proc/mounts").map_err(|error| format!("/proc/mounts: {error}"))?;
        if !has_hugetlbfs(&mounts) {
            fs::create_dir_all(mount_point).map_err(|error| format!("{}: {error}", mount_point.display()))?;
            run(Command::new("mount")
                .args(["-t", "hugetlbfs", "-o", "pagesize=2M", "none"])
                .arg(mount_point))
            .map_err(|error| error.to_string())?;
            guard.mounted = Some(mount_point.to_owned());
        }
        Ok(guard)
    }
}

impl Drop for Hugepages {
    fn drop(&mut self) {
        if let Some(mounted) = &self.mounted
            && let Err(error) = run(Command::new("umount").arg(mounted))
        {
            eprintln!("weir-bench: {error}");
        }
        if let Some(before) = self.before
            && let Err(error) = set(before)
        {
            eprintln!("weir-bench: cannot give the hugepages back: {error}");
        }
    }
}

/// True if a hugetlbfs of 2 MiB pages stands in /proc/mounts.
fn has_hugetlbfs(mounts: &str) -> bool {
    mounts.lines().any(|line| {
        let mut words = line.split(' ').skip(2);
        words.next() == Some("hugetlbfs")
            && words.next().is_some_and(|options| !options.contains("pagesize=1024M"))
    })
}

fn count(file: &str) -> Result<u64, String> {
    let path = Path::new(PAGES).join(file);
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    text.trim().parse().map_err(|error| format!("{}: {text:?}: {error}", path.display()))
}

fn set(pages: u64) -> Result<(), String> {
    let path = Path::new(PAGES).join("nr_hugepages");
    fs::write(&path, pages.to_string()).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mounted_hugetlbfs_is_found() {
        assert!(has_hugetlbfs("proc /proc proc rw 0 0\nnone /h hugetlbfs rw,relatime,pagesize=2M 0 0\n"));
        assert!(!has_hugetlbfs("none /h hugetlbfs rw,relatime,pagesize=1024M 0 0\n"));
        assert!(!has_hugetlbfs("hugetlbfs /h tmpfs rw 0 0\n"));
    }
}
