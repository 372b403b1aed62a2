//! The daemon's log: structured events to standard error, as text or JSON, with levels that `vlog/set` can
//! change while running.

use std::io;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use super::LogArgs;
use crate::control::commands::LOG_MODULES;
use crate::flow::nearest;

/// Why logging did not start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// `--log` holds something else than levels.
    #[error(
        "--log: \"{word}\" is no log level; write off, error, warn, info, debug or trace, or MODULE=LEVEL{hint}"
    )]
    Level {
        /// What it holds.
        word: String,
        /// "did you mean", or nothing.
        hint: String,
    },
    /// A second logger.
    #[error("logging has been started already: {0}")]
    Started(String),
}

/// The levels in force, and the handle that changes them.
#[derive(Debug)]
pub struct Log {
    handle: reload::Handle<Targets, Registry>,
    levels: Mutex<Levels>,
}

/// One level for all, others for some modules.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Levels {
    default: LevelFilter,
    modules: [Option<LevelFilter>; LOG_MODULES.len()],
}

impl Log {
    /// Starts logging for the whole process.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn start(args: &LogArgs) -> Result<Self, LogError> {
        let levels: Levels = args.level.parse()?;
        let (filter, handle) = reload::Layer::new(levels.targets());
        // A log that cannot be written (its pipe was closed) must not stop what it tells of.
        let lines = fmt::layer().with_writer(io::stderr).log_internal_errors(false);
        let lines = if args.json {
            lines.json().flatten_event(true).boxed()
        } else {
            use std::io::IsTerminal;
            lines.with_ansi(io::stderr().is_terminal()).boxed()
        };
        tracing_subscriber::registry()
            .with(filter)
            .with(lines)
            .try_init()
            .map_err(|error| LogError::Started(error.to_string()))?;
        Ok(Self { handle, levels: Mutex::new(levels) })
    }

    /// Changes one module's level, or everyone's. `level` is one of ovs-appctl's words.
    ///
    /// # Errors
    /// A message, when `level` or `module` is unknown or logging has ended.
    pub fn set(&self, module: Option<&str>, level: &str) -> Result<(), String> {
        let level = match level {
            "off" => LevelFilter::OFF,
            "emer" | "err" => LevelFilter::ERROR,
            "warn" => LevelFilter::WARN,
            "info" => LevelFilter::INFO,
            "dbg" => LevelFilter::DEBUG,
            other => return Err(format!("no level \"{other}\"")),
        };
        let mut levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        match module {
            None => *levels = Levels { default: level, modules: [None; LOG_MODULES.len()] },
            Some(module) => {
                *levels.place(module).ok_or_else(|| format!("no module \"{module}\""))? = Some(level)
            }
        }
        self.handle.reload(levels.targets()).map_err(|error| error.to_string())
    }

    /// Every module with its level, in ovs-appctl's words.
    #[must_use]
    pub fn levels(&self) -> Vec<(String, String)> {
        let levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        let word = |level: LevelFilter| match level {
            LevelFilter::OFF => "OFF",
            LevelFilter::ERROR => "ERR",
            LevelFilter::WARN => "WARN",
            LevelFilter::INFO => "INFO",
            _ => "DBG",
        };
        let modules = LOG_MODULES.iter().zip(&levels.modules);
        modules
            .map(|(name, level)| ((*name).to_owned(), word(level.unwrap_or(levels.default)).to_owned()))
            .collect()
    }
}

impl Levels {
    fn place(&mut self, module: &str) -> Option<&mut Option<LevelFilter>> {
        LOG_MODULES.iter().zip(&mut self.modules).find(|(name, _)| **name == module).map(|(_, place)| place)
    }

    /// Modules of this crate are `weir::NAME`, the crates below `weir_NAME`, and DPDK's own log is `dpdk`.
    fn targets(&self) -> Targets {
        let set = LOG_MODULES.iter().zip(&self.modules).filter_map(|(name, level)| Some((name, (*level)?)));
        set.fold(Targets::new().with_default(self.default), |targets, (name, level)| {
            ["weir::", "weir_", ""]
                .into_iter()
                .fold(targets, |targets, prefix| targets.with_target(format!("{prefix}{name}"), level))
        })
    }
}

impl FromStr for Levels {
    type Err = LogError;

    fn from_str(text: &str) -> Result<Self, LogError> {
        let mut levels = Self { default: LevelFilter::INFO, modules: [None; LOG_MODULES.len()] };
        for word in text.split(',').map(str::trim) {
            let unknown = |near: Option<&str>| LogError::Level {
                word: word.to_owned(),
                hint: near.map(|near| format!("; did you mean \"{near}\"?")).unwrap_or_default(),
            };
            let level = |word: &str| {
                let words = ["off", "error", "warn", "info", "debug", "trace"];
                let known = words.into_iter().find(|known| known.eq_ignore_ascii_case(word));
                known.and_then(|known| known.parse().ok()).ok_or_else(|| unknown(nearest(word, words)))
            };
            match word.split_once('=') {
                None => levels.default = level(word)?,
                Some((module, wanted)) => {
                    let wanted = level(wanted)?;
                    let place = levels.place(module).ok_or_else(|| unknown(nearest(module, LOG_MODULES)))?;
                    *place = Some(wanted);
                }
            }
        }
        Ok(levels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_one_for_all_and_others_for_some_modules() {
        let levels: Levels = "warn, control=debug".parse().unwrap();
        let targets = levels.targets();
        assert!(targets.would_enable("weir::control::server", &tracing::Level::DEBUG));
        assert!(!targets.would_enable("weir::daemon::state", &tracing::Level::INFO));
        assert!(targets.would_enable("dpdk", &tracing::Level::WARN));
    }

    #[test]
    fn a_wrong_level_or_module_is_named() {
        let error = |text: &str| text.parse::<Levels>().unwrap_err().to_string();
        assert!(error("inof").contains("\"inof\" is no log level"), "{}", error("inof"));
        assert!(error("inof").contains("did you mean \"info\"?"));
        assert!(error("contrl=info").contains("did you mean \"control\"?"));
        assert!(error("").contains("\"\" is no log level"));
    }
}
