//! What a command is: its place in a family, its arguments, and what does it. Dispatch, usage errors, `list-commands`,
//! `help` and the client's reading of files are all made from [`CommandSpec`].

use std::fmt::Write;

use super::{APPCTL, Call, CommandError, Daemon, OFCTL, SHOW, ZONE, ct, vsctl};
use crate::control::output::Output;
use crate::flow::nearest;

/// Which of Open vSwitch's programs a command belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// ovs-ofctl: bridges and flows.
    Ofctl,
    /// ovs-appctl: the daemon.
    Appctl,
    /// ovs-vsctl: which bridges and ports there are.
    Vsctl,
    /// weir's own: connections.
    Ct,
    /// weir's own: connection tracking zones.
    Zone,
    /// weir's own: how the datapath is made up.
    Show,
}

impl Family {
    /// Every family.
    pub const ALL: [Self; 6] = [Self::Ofctl, Self::Appctl, Self::Vsctl, Self::Ct, Self::Zone, Self::Show];

    /// The word in front of the command.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ofctl => "ofctl",
            Self::Appctl => "appctl",
            Self::Vsctl => "vsctl",
            Self::Ct => "ct",
            Self::Zone => "zone",
            Self::Show => "show",
        }
    }

    /// Exit status when a command fails, as Open vSwitch's programs have it.
    #[must_use]
    pub const fn failure(self) -> u8 {
        match self {
            Self::Appctl => 2,
            Self::Ofctl | Self::Vsctl | Self::Ct | Self::Zone | Self::Show => 1,
        }
    }

    /// Its commands.
    #[must_use]
    pub fn commands(self) -> &'static [CommandSpec] {
        match self {
            Self::Ofctl => OFCTL,
            Self::Appctl => APPCTL,
            Self::Vsctl => vsctl::COMMANDS,
            Self::Ct => ct::COMMANDS,
            Self::Zone => ZONE,
            Self::Show => SHOW,
        }
    }

    /// Looks a command up.
    #[must_use]
    pub fn find(self, name: &str) -> Option<&'static CommandSpec> {
        self.commands().iter().find(|spec| spec.name == name)
    }

    /// What to say about a command that is not there.
    #[must_use]
    pub fn unknown(self, name: &str) -> String {
        let near = nearest(name, self.commands().iter().map(|spec| spec.name));
        let hint = near.map(|near| format!("; did you mean '{near}'?")).unwrap_or_default();
        match self {
            Self::Appctl => {
                format!(
                    "\"{name}\" is not a valid command (use \"list-commands\" to see a list of valid commands){hint}"
                )
            }
            _ => format!("unknown command '{name}'; use --help for help{hint}"),
        }
    }

    /// What `list-commands` prints.
    #[must_use]
    pub fn list(self) -> String {
        let mut text = String::from("The available commands are:\n");
        for spec in self.commands() {
            let line = format!("  {:<23} {}", spec.name, spec.usage);
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text
    }

    /// The commands with their help, for `--help`.
    #[must_use]
    pub fn help(self) -> String {
        let mut text = String::from("Commands:\n");
        for spec in self.commands() {
            let _ = writeln!(text, "  {} {}", spec.name, spec.usage);
            let _ = writeln!(text, "          {}", spec.help);
        }
        if self == Self::Ct {
            let _ = write!(text, "\n{}", ct::help());
        }
        text
    }
}

/// Which argument, from 0, names a file; `-` is standard input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileArgument {
    /// None does.
    None,
    /// This one does.
    Path(usize),
    /// This one, but only when it is `-`; otherwise it is a flow.
    Dash(usize),
}

/// A command's function.
pub type Run = fn(&Call<'_>, &Daemon, &mut Output<'_>) -> Result<(), CommandError>;

/// A command's function that needs no daemon.
pub type RunLocal = fn(&Call<'_>, &mut Output<'_>) -> Result<(), CommandError>;

/// How a command is done.
#[derive(Clone, Copy, Debug)]
pub enum Action {
    /// At once.
    Run(Run),
    /// By the client itself, without a daemon.
    Local(RunLocal),
    /// As a step of one change of the configuration (vsctl).
    Plan(vsctl::Planner),
}

/// One command.
#[derive(Debug)]
pub struct CommandSpec {
    /// Its name.
    pub name: &'static str,
    /// Its arguments, for people.
    pub usage: &'static str,
    /// Fewest arguments.
    pub min: usize,
    /// Most arguments.
    pub max: usize,
    /// What it does, in a sentence.
    pub help: &'static str,
    /// Has something to show, and understands `--json`.
    pub reads: bool,
    /// Which argument is a file for the client to read and send along.
    pub file: FileArgument,
    /// Does it.
    pub action: Action,
}

impl CommandSpec {
    /// What is wrong with the number of arguments, in ovs-ofctl's words.
    #[must_use]
    pub fn count_error(&self, family: Family, count: usize) -> Option<String> {
        let quote = if family == Family::Appctl { '"' } else { '\'' };
        let (bound, limit) = match count {
            _ if count < self.min => ("requires at least", self.min),
            _ if count > self.max => ("takes at most", self.max),
            _ => return None,
        };
        Some(format!("{quote}{}{quote} command {bound} {limit} arguments", self.name))
    }
}

/// One line of a command table.
pub(super) const fn entry(
    name: &'static str,
    usage: &'static str,
    (min, max): (usize, usize),
    action: Action,
    help: &'static str,
) -> CommandSpec {
    CommandSpec { name, usage, min, max, help, reads: false, file: FileArgument::None, action }
}

/// One line of a command table, for a command that is done at once.
pub(super) const fn command(
    name: &'static str,
    usage: &'static str,
    args: (usize, usize),
    run: Run,
    help: &'static str,
) -> CommandSpec {
    entry(name, usage, args, Action::Run(run), help)
}

/// One line of a command table, for a command that needs no daemon.
pub(super) const fn local(
    name: &'static str,
    usage: &'static str,
    args: (usize, usize),
    run: RunLocal,
    help: &'static str,
) -> CommandSpec {
    entry(name, usage, args, Action::Local(run), help)
}

impl CommandSpec {
    pub(super) const fn reading(self) -> Self {
        Self { reads: true, ..self }
    }
    pub(super) const fn with_file(self, file: FileArgument) -> Self {
        Self { file, ..self }
    }
}
