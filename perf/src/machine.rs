//! What figures were measured on and of: they mean nothing without it.

use std::fs;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::process::run;

/// The machine and the versions of what was measured; what cannot be found out is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name.
    pub processor: Option<String>,
    /// CPUs that the bench may use.
    pub cpus: usize,
    /// All memory, in MiB.
    pub memory_mib: Option<u64>,
    /// The kernel's release.
    pub kernel: Option<String>,
    /// The version of weir, and the commit where that can be told.
    pub weir: String,
    /// The version of DPDK.
    pub dpdk: Option<String>,
    /// The version of Open vSwitch.
    pub ovs: Option<String>,
    /// When, in seconds since 1970.
    pub unix_time: u64,
}

impl Machine {
    /// This one, now.
    #[must_use]
    pub fn here() -> Self {
        let said = |program: &str, arguments: &[&str]| {
            let text = run(Command::new(program).args(arguments)).ok()?;
            text.lines().next().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty())
        };
        let version = env!("CARGO_PKG_VERSION");
        let commit = said("git", &["describe", "--always", "--dirty", "--exclude=*"]);
        let colon = |file: &str, key: &str| field(&fs::read_to_string(file).ok()?, key);
        let memory = colon("/proc/meminfo", "MemTotal")
            .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
        Self {
            processor: colon("/proc/cpuinfo", "model name"),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: memory.map(|kib| kib / 1024),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").ok().map(|text| text.trim().to_owned()),
            weir: commit.map_or_else(|| version.to_owned(), |commit| format!("{version} ({commit})")),
            dpdk: said("pkg-config", &["--modversion", "libdpdk"]),
            ovs: said("ovs-vswitchd", &["--version"]),
            unix_time: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()),
        }
    }

    /// In one sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        let known = |value: &Option<String>| value.clone().unwrap_or_else(|| "unknown".to_owned());
        let memory = self.memory_mib.map_or_else(String::new, |mib| format!(", {} GiB", mib.div_ceil(1024)));
        format!(
            "{}, {} CPUs{memory}, Linux {}, DPDK {}, weir {}, {}",
            known(&self.processor),
            self.cpus,
            known(&self.kernel),
            known(&self.dpdk),
            self.weir,
            date(self.unix_time),
        )
    }
}

/// The value behind the first "KEY :" of a file in /proc.
fn field(text: &str, key: &str) -> Option<String> {
    let (_, value) =
        text.lines().filter_map(|line| line.split_once(':')).find(|(name, _)| name.trim() == key)?;
    Some(value.trim().to_owned())
}

/// The day in UTC, as 2026-11-23: Howard Hinnant's "civil from days".
fn date(unix_time: u64) -> String {
    let days = unix_time / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!("{}-{month:02}-{day:02}", year_of_era + era * 400 + year)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_their_dates() {
        for (time, day) in [
            (0, "1970-01-01"),
            (951_782_399, "2000-02-28"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (1_795_391_999, "2026-11-22"),
            (4_102_444_799, "2099-12-31"),
        ] {
            assert_eq!(date(time), day);
        }
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "model\t\t: 17\nmodel name\t: A CPU: the first\nmodel name\t: another\n";
        assert_eq!(field(text, "model name").as_deref(), Some("A CPU: the first"));
        assert_eq!(field(text, "name"), None);
    }
}
