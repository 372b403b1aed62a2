//! Lists of CPUs as the kernel and its tools write them: "0-3,8,10-11".

use std::fmt;
use std::str::FromStr;

/// Numbers from here on are mistakes: Linux is built for fewer CPUs.
const LIMIT: u32 = 8192;

/// A set of CPU numbers, in ascending order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuList(Vec<u32>);

/// What is wrong with a list of CPUs, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("CPU list {list:?}, part {part:?}: {problem}; write numbers and ranges with commas, as 1,3-5")]
pub struct CpuListError {
    /// The list.
    pub list: String,
    /// The part between commas that is wrong.
    pub part: String,
    /// What is wrong with it.
    pub problem: CpuListProblem,
}

/// The ways in which a part of a list is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CpuListProblem {
    /// Not a number, or nothing.
    #[error("this is no number and no range of numbers")]
    NoNumber,
    /// A number beyond any machine.
    #[error("CPU numbers are below {LIMIT}")]
    TooLarge,
    /// The end comes before the start.
    #[error("this range is backwards")]
    Backwards,
    /// A CPU that an earlier part named.
    #[error("CPU {0} is named twice")]
    Twice(u32),
}

impl CpuList {
    /// The CPUs, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().copied()
    }

    /// Whether it names `cpu`.
    pub fn contains(&self, cpu: u32) -> bool {
        self.0.binary_search(&cpu).is_ok()
    }

    /// How many CPUs it names.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it names none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<u32> for CpuList {
    fn from_iter<I: IntoIterator<Item = u32>>(cpus: I) -> Self {
        let mut cpus: Vec<u32> = cpus.into_iter().collect();
        cpus.sort_unstable();
        cpus.dedup();
        Self(cpus)
    }
}

impl FromStr for CpuList {
    type Err = CpuListError;

    /// Blanks around numbers are allowed; a blank text is the empty list, as in sysfs for a node without CPUs.
    fn from_str(list: &str) -> Result<Self, CpuListError> {
        let mut cpus: Vec<u32> = Vec::new();
        if list.trim().is_empty() {
            return Ok(Self(cpus));
        }
        for part in list.split(',') {
            // Hostile lists may be long; an error quotes little of them.
            let quote = |text: &str| text.chars().take(64).collect::<String>();
            let error =
                |problem| CpuListError { list: quote(list.trim()), part: quote(part.trim()), problem };
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first).map_err(error)?, number(last).map_err(error)?);
            if first > last {
                return Err(error(CpuListProblem::Backwards));
            }
            for cpu in first..=last {
                match cpus.binary_search(&cpu) {
                    Ok(_) => return Err(error(CpuListProblem::Twice(cpu))),
                    Err(place) => cpus.insert(place, cpu),
                }
            }
        }
        Ok(Self(cpus))
    }
}

fn number(text: &str) -> Result<u32, CpuListProblem> {
    let text = text.trim();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(CpuListProblem::NoNumber);
    }
    text.parse().ok().filter(|&cpu| cpu < LIMIT).ok_or(CpuListProblem::TooLarge)
}

impl fmt::Display for CpuList {
    /// The shortest text, as the kernel prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_slice();
        let mut separator = "";
        while let Some(&first) = rest.first() {
            let run = rest.iter().zip(first..).take_while(|&(&cpu, expected)| cpu == expected).count();
            let last = rest.get(run - 1).copied().unwrap_or(first);
            match run {
                1 => write!(f, "{separator}{first}")?,
                _ => write!(f, "{separator}{first}-{last}")?,
            }
            separator = ",";
            rest = rest.get(run..).unwrap_or_default();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_printed_as_the_kernel_does() {
        for (text, canonical) in
            [("1,3-5", "1,3-5"), ("5,3,4,1", "1,3-5"), (" 0 - 1 , 2\n", "0-2"), ("7", "7"), ("\n", "")]
        {
            assert_eq!(text.parse::<CpuList>().expect(text).to_string(), canonical);
        }
        let list: CpuList = "1,3-5".parse().expect("valid");
        assert_eq!((list.len(), list.contains(4), list.contains(2)), (4, true, false));
    }

    #[test]
    fn a_wrong_part_is_named_with_what_is_wrong_with_it() {
        use CpuListProblem::{Backwards, NoNumber, TooLarge, Twice};
        for (text, part, problem) in [
            ("1,x", "x", NoNumber),
            ("1,,2", "", NoNumber),
            ("1-", "1-", NoNumber),
            ("-1", "-1", NoNumber),
            ("+1", "+1", NoNumber),
            ("1-2-3", "1-2-3", NoNumber),
            ("5-3", "5-3", Backwards),
            ("0-4294967295", "0-4294967295", TooLarge),
            ("99999999999999999999", "99999999999999999999", TooLarge),
            ("1-3,2", "2", Twice(2)),
        ] {
            let error = text.parse::<CpuList>().expect_err(text);
            assert_eq!((error.part.as_str(), error.problem), (part, problem), "{text}");
            assert!(error.to_string().contains("as 1,3-5"));
        }
    }
}
