//! File transfers between the two hosts: Debian's FTP and TFTP servers (`vsftpd`, `in.tftpd`) as one end, `curl`
//! as the other. The servers run from files in the laboratory's directory and are nobody's services; the FTP
//! server refuses data connections to or from anyone but the client of the control connection, so that a transfer
//! works only where translation has been true in the payload, too.

use std::fs::{self, Permissions};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::checks::CheckError;
use super::pair::Host;
use super::{Namespace, Pair};
use crate::process::{Background, ProcessError};

/// How long a server may take to listen.
const START: Duration = Duration::from_secs(10);
/// The file that a server offers.
pub const OFFERED: &str = "offered";
/// What `curl` may use for all of a transfer, in seconds.
const PATIENCE: &str = "20";

/// A running server and the directory that it serves: [`OFFERED`] for reading, `incoming` for writing.
#[derive(Debug)]
pub struct FileServer {
    _process: Background,
    root: PathBuf,
    log: PathBuf,
    content: Vec<u8>,
}

impl FileServer {
    /// An FTP server at `port` of every address of `host`, for IPv4 and IPv6, without names and passwords.
    ///
    /// # Errors
    /// If its files cannot be written or it does not listen within ten seconds.
    pub fn ftp(pair: &Pair, host: &Host, port: u16, bytes: usize) -> Result<Self, ProcessError> {
        let (root, content) = prepare(pair, "ftp", bytes)?;
        let empty = pair.lab.directory().join("ftp-empty");
        fs::create_dir(&empty).map_err(|source| io(&empty, source))?;
        let (config, log) = (root.with_extension("conf"), root.with_extension("log"));
        let text = format!(
            "listen=NO\nlisten_ipv6=YES\nlisten_port={port}\nbackground=NO\n\
             anonymous_enable=YES\nno_anon_password=YES\nlocal_enable=NO\nftp_username=ftp\nnopriv_user=nobody\n\
             anon_root={}\nsecure_chroot_dir={}\nwrite_enable=YES\nanon_upload_enable=YES\nanon_umask=022\n\
             anon_world_readable_only=NO\nconnect_from_port_20=YES\nport_promiscuous=NO\npasv_promiscuous=NO\n\
             xferlog_enable=YES\nxferlog_std_format=NO\nvsftpd_log_file={}\nlog_ftp_protocol=YES\n\
             isolate=NO\nisolate_network=NO\nseccomp_sandbox=NO\n",
            root.display(),
            empty.display(),
            log.display()
        );
        fs::write(&config, text).map_err(|source| io(&config, source))?;
        let mut command = host.namespace.command("vsftpd");
        let mut process = host.namespace.start("vsftpd", command.arg(&config))?;
        process.wait_until("it listens", START, || listens(&host.namespace, "-t", port))?;
        Ok(Self { _process: process, root, log, content })
    }

    /// A TFTP server at port 69 of the host's IPv4 address.
    ///
    /// # Errors
    /// If its files cannot be written or it does not listen within ten seconds.
    pub fn tftp(pair: &Pair, host: &Host, bytes: usize) -> Result<Self, ProcessError> {
        let (root, content) = prepare(pair, "tftp", bytes)?;
        let log = pair.lab.directory().join("in.tftpd.log");
        let mut command = host.namespace.command("in.tftpd");
        command.args(["--foreground", "--create", "--permissive", "--secure", "--user", "nobody"]);
        command.arg("--address").arg(format!("{}:69", host.v4)).arg(&root);
        let mut process = host.namespace.start("in.tftpd", &mut command)?;
        process.wait_until("it listens", START, || listens(&host.namespace, "-u", 69))?;
        Ok(Self { _process: process, root, log, content })
    }

    /// The file that it offers.
    pub fn content(&self) -> &[u8] {
        &self.content
    }

    /// A file that somebody has sent.
    pub fn received(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.root.join("incoming").join(name)).ok()
    }

    /// What the FTP server has written of its dialogues.
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }
}

fn io(path: &Path, source: std::io::Error) -> ProcessError {
    ProcessError::Io { what: format!("cannot write {}", path.display()), source }
}

/// The server's directory with its file, whose bytes are no repetition of one another within a packet.
fn prepare(pair: &Pair, name: &str, bytes: usize) -> Result<(PathBuf, Vec<u8>), ProcessError> {
    // 69621 is a primitive root modulo the prime 2^31 - 1 (Fishman and Moore, 1986).
    let mut state = 1_u64;
    let content: Vec<u8> = std::iter::repeat_with(|| {
        state = state * 69_621 % 0x7fff_ffff;
        state.to_le_bytes()[1]
    })
    .take(bytes)
    .collect();
    let root = pair.lab.directory().join(name);
    let (incoming, offered) = (root.join("incoming"), root.join(OFFERED));
    fs::create_dir_all(&incoming).map_err(|source| io(&incoming, source))?;
    fs::write(&offered, &content).map_err(|source| io(&offered, source))?;
    // The server's user is nobody and writes here alone; vsftpd wants a root that its user cannot write to.
    for (path, mode) in [(&incoming, 0o777), (&root, 0o755), (&offered, 0o644)] {
        fs::set_permissions(path, Permissions::from_mode(mode)).map_err(|source| io(path, source))?;
    }
    Ok((root, content))
}

/// Whether something listens at the port, `transport` being what `ss` calls it.
fn listens(namespace: &Namespace, transport: &str, port: u16) -> bool {
    let filter = format!("sport = :{port}");
    namespace.run("ss", &["-H", "-l", "-n", transport, &filter]).is_ok_and(|text| !text.trim().is_empty())
}

/// Who opens the data connections, and how that is agreed upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The server, told by PORT (RFC 959).
    Port,
    /// The server, told by EPRT (RFC 2428).
    ExtendedPort,
    /// The client, told by the reply to PASV (RFC 959), whose address it believes.
    Passive,
    /// The client, told by the reply to EPSV (RFC 2428).
    ExtendedPassive,
}

impl Mode {
    /// All that IPv4 has; IPv6 has the extended ones.
    pub const ALL: [Self; 4] = [Self::Port, Self::ExtendedPort, Self::Passive, Self::ExtendedPassive];
    /// Those of IPv6.
    pub const EXTENDED: [Self; 2] = [Self::ExtendedPort, Self::ExtendedPassive];

    /// The command on the control connection.
    pub fn command(self) -> &'static str {
        match self {
            Self::Port => "PORT",
            Self::ExtendedPort => "EPRT",
            Self::Passive => "PASV",
            Self::ExtendedPassive => "EPSV",
        }
    }

    /// How the server says that it agrees.
    pub fn agreement(self) -> &'static str {
        match self {
            Self::Port => "200 PORT command successful",
            Self::ExtendedPort => "200 EPRT command successful",
            Self::Passive => "227 Entering Passive Mode",
            Self::ExtendedPassive => "229 Entering Extended Passive Mode",
        }
    }

    /// Whether the server opens the data connections.
    pub fn is_active(self) -> bool {
        matches!(self, Self::Port | Self::ExtendedPort)
    }

    fn options(self) -> &'static [&'static str] {
        match self {
            Self::Port => &["--ftp-port", "-", "--disable-eprt"],
            Self::ExtendedPort => &["--ftp-port", "-"],
            Self::Passive => &["--disable-epsv", "--no-ftp-skip-pasv-ip"],
            Self::ExtendedPassive => &[],
        }
    }
}

fn names(listing: &str) -> Vec<String> {
    listing.lines().map(|line| line.trim().to_owned()).collect()
}

/// Reads and writes files as the host inside does.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    pair: &'a Pair,
    scheme: &'static str,
    server: IpAddr,
    port: u16,
    options: &'static [&'static str],
    from: Option<(IpAddr, u16)>,
}

impl<'a> Client<'a> {
    /// An FTP client that knows the server by this address and port.
    pub fn ftp(pair: &'a Pair, server: IpAddr, port: u16, mode: Mode) -> Self {
        Self { pair, scheme: "ftp", server, port, options: mode.options(), from: None }
    }

    /// A TFTP client that knows the server by this address.
    pub fn tftp(pair: &'a Pair, server: IpAddr) -> Self {
        Self { pair, scheme: "tftp", server, port: 69, options: &[], from: None }
    }

    /// The same from one of its host's addresses; data connections that the server opens go to this port.
    #[must_use]
    pub fn from(self, address: IpAddr, port: u16) -> Self {
        Self { from: Some((address, port)), ..self }
    }

    /// The names in the server's directory.
    ///
    /// # Errors
    /// If the transfer fails.
    pub fn list(self) -> Result<Vec<String>, CheckError> {
        Ok(names(&self.curl("", &["--list-only"])?))
    }

    /// The same, after a command of its own on the control connection.
    ///
    /// # Errors
    /// If the transfer or the command fails.
    pub fn announce(self, command: &str) -> Result<Vec<String>, CheckError> {
        Ok(names(&self.curl("", &["--list-only", "--quote", command])?))
    }

    /// Reads the file that the server offers and compares it.
    ///
    /// # Errors
    /// If the transfer fails, or something else comes.
    pub fn read(self, server: &FileServer) -> Result<(), CheckError> {
        let file = self.pair.lab.directory().join("read");
        self.curl(OFFERED, &["--output", &file.to_string_lossy()])?;
        let got = fs::read(&file).map_err(|source| io(&file, source))?;
        self.same("read", &got, server)
    }

    /// Sends the same file under another name and looks at what the server has got.
    ///
    /// # Errors
    /// If the transfer fails, or something else arrives.
    pub fn write(self, server: &FileServer, name: &str) -> Result<(), CheckError> {
        let file = server.root.join(OFFERED);
        self.curl(&format!("incoming/{name}"), &["--upload-file", &file.to_string_lossy()])?;
        self.same("wrote", &server.received(name).unwrap_or_default(), server)
    }

    fn same(self, verb: &str, got: &[u8], server: &FileServer) -> Result<(), CheckError> {
        let wanted = &server.content;
        if got == wanted.as_slice() {
            return Ok(());
        }
        let differs = got.iter().zip(wanted).position(|(a, b)| a != b);
        Err(CheckError::Wrong(format!(
            "{verb} {} of {} bytes by {}, first difference at {differs:?}",
            got.len(),
            wanted.len(),
            self.scheme
        )))
    }

    fn curl(self, path: &str, more: &[&str]) -> Result<String, ProcessError> {
        let host = match self.server {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        let url = format!("{}://{host}:{}/{path}", self.scheme, self.port);
        let mut words = vec!["--silent", "--show-error", "--verbose", "--globoff", "--max-time", PATIENCE];
        words.extend(self.options);
        let from = self.from.map(|(address, port)| (address.to_string(), format!("{address}:{port}-{port}")));
        if let Some((address, port)) = &from {
            words.extend(["--interface", address, "--ftp-port", port]);
        }
        words.extend(more);
        words.push(&url);
        self.pair.inside.namespace.run("curl", &words)
    }
}
