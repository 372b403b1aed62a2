//! Programs that everybody has, as they are run between two hosts: each function starts one or runs one to its
//! end, bounded in time, and says what is wrong in words that can be read without the code.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::checks::CheckError;
use super::{Lab, Namespace};
use crate::process::{self, Background, ProcessError};

/// Seconds after which a program has failed, however slow the machine.
const LIMIT: &str = "120";
/// How long a server may take to listen.
const START: Duration = Duration::from_secs(20);
/// The web server: a page that says who asks, files to fetch, and a place to put some.
const NGINX: &str = "daemon off; master_process off; user root; pid {DIR}/nginx.pid;
error_log {DIR}/nginx-error.log; events { worker_connections 4096; }
http {
  access_log off; client_max_body_size 0; default_type application/octet-stream;
  client_body_temp_path {DIR}/body; proxy_temp_path {DIR}/proxy; fastcgi_temp_path {DIR}/fastcgi;
  uwsgi_temp_path {DIR}/uwsgi; scgi_temp_path {DIR}/scgi;
  server {
    listen 80 backlog=4096; listen [::]:80 backlog=4096;
    location = /who { return 200 \"$remote_addr $server_addr\\n\"; }
    location /put/ { root {DIR}; dav_methods PUT; }
    location / { root {DIR}/www; }
  }
}
";
/// DNS records: name, and what it is.
const RECORDS: [&str; 3] = [
    "--host-record=host.example.test,192.0.2.7,2001:db8::7",
    "--cname=alias.example.test,host.example.test",
    "--no-resolv",
];

fn wrong<T>(message: String) -> Result<T, CheckError> {
    Err(CheckError::Wrong(message))
}

/// Runs a program to its end in `namespace`, killed after [`LIMIT`].
fn run(namespace: &Namespace, program: &str, words: &[&str]) -> Result<String, ProcessError> {
    let mut all = vec!["-k", "5", LIMIT, program];
    all.extend(words);
    namespace.run("timeout", &all)
}

/// An address as a URL has it.
pub fn in_url(address: IpAddr) -> String {
    if address.is_ipv6() { format!("[{address}]") } else { address.to_string() }
}

/// Waits until somebody listens at a port in `namespace`; `protocol` is `t` or `u`.
fn wait_for(
    server: &mut Background,
    namespace: &Namespace,
    protocol: char,
    port: u16,
) -> Result<(), ProcessError> {
    let (options, end) = (format!("-Hln{protocol}"), format!(":{port}"));
    server.wait_until("it listens", START, || {
        namespace.run("ss", &[&options]).is_ok_and(|text| {
            text.lines().any(|line| line.split_whitespace().any(|word| word.ends_with(&end)))
        })
    })
}

/// A web server (nginx) on port 80 with a file of `bytes` bytes at `/file`, `/who` that says who asks, and `/`
/// with a few bytes.
///
/// # Errors
/// If it cannot be started.
pub fn web(lab: &Lab, namespace: &Namespace, bytes: usize) -> Result<Background, ProcessError> {
    let directory = lab.directory();
    let io = |source| ProcessError::Io { what: format!("cannot write to {}", directory.display()), source };
    for name in ["www", "put"] {
        fs::create_dir_all(directory.join(name)).map_err(io)?;
    }
    // Bytes that differ from place to place: a number in each line.
    let mut content = String::with_capacity(bytes + 16);
    for number in 0.. {
        if content.len() >= bytes {
            break;
        }
        content.push_str(&format!("{number:015}\n"));
    }
    content.truncate(bytes);
    fs::write(directory.join("www/file"), content).map_err(io)?;
    fs::write(directory.join("www/index.html"), "short\n").map_err(io)?;
    let config = directory.join("nginx.conf");
    fs::write(&config, NGINX.replace("{DIR}", &directory.to_string_lossy())).map_err(io)?;
    let mut command = namespace.command("nginx");
    command.arg("-e").arg(directory.join("nginx-error.log")).arg("-c").arg(&config);
    let mut server = namespace.start("nginx", &mut command)?;
    wait_for(&mut server, namespace, 't', 80)?;
    Ok(server)
}

/// The two ends of a connection, as the web server sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Who {
    /// The client.
    pub address: IpAddr,
    /// The server itself.
    pub server: IpAddr,
}

/// Asks the web server at `to` as whom it sees us, and as whom we reached it.
///
/// # Errors
/// If curl fails or the answer is not two addresses.
pub fn who(from: &Namespace, to: IpAddr) -> Result<Who, CheckError> {
    let text = curl(from, to, "who", &[])?;
    let mut words = text.split_whitespace().map(str::parse);
    match (words.next(), words.next()) {
        (Some(Ok(address)), Some(Ok(server))) => Ok(Who { address, server }),
        _ => wrong(format!("the web server's answer is not two addresses: {text:?}")),
    }
}

fn curl(from: &Namespace, to: IpAddr, path: &str, more: &[&str]) -> Result<String, ProcessError> {
    let url = format!("http://{}/{path}", in_url(to));
    let mut words = vec!["-sS", "--fail", "--globoff", "--max-time", "60"];
    words.extend(more);
    words.push(&url);
    run(from, "curl", &words)
}

/// The web server's file, put back there, arrives as it was.
///
/// # Errors
/// If it does not arrive, or arrives changed.
pub fn upload(lab: &Lab, from: &Namespace, to: IpAddr) -> Result<(), CheckError> {
    let (original, copy) = (lab.directory().join("www/file"), lab.directory().join("put/file"));
    curl(from, to, "put/file", &["--upload-file", &original.to_string_lossy()])?;
    same(&original, &copy)
}

fn same(original: &Path, copy: &Path) -> Result<(), CheckError> {
    process::run(Command::new("cmp").arg(original).arg(copy)).map(drop)?;
    // The next transfer must not be taken for this one.
    fs::remove_file(copy)
        .map_err(|source| ProcessError::Io { what: format!("cannot remove {}", copy.display()), source })?;
    Ok(())
}

/// The web server's file comes as it is.
///
/// # Errors
/// If it does not come, or comes changed.
pub fn download(lab: &Lab, from: &Namespace, to: IpAddr) -> Result<(), CheckError> {
    let (original, copy) = (lab.directory().join("www/file"), lab.directory().join("copy"));
    curl(from, to, "file", &["--output", &copy.to_string_lossy()])?;
    same(&original, &copy)
}

/// `count` requests by `ab`, each on a connection of its own, `at_once` of them at a time.
///
/// # Errors
/// If one fails.
pub fn short_connections(from: &Namespace, to: IpAddr, count: u32, at_once: u32) -> Result<(), CheckError> {
    let (url, count_text, at_once) =
        (format!("http://{}/", in_url(to)), count.to_string(), at_once.to_string());
    let text = run(from, "ab", &["-q", "-s", "30", "-n", &count_text, "-c", &at_once, &url])?;
    let number = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name))
            .and_then(|rest| rest.split_whitespace().next()?.parse::<u32>().ok())
    };
    let good = number("Complete requests:") == Some(count)
        && number("Failed requests:") == Some(0)
        && number("Non-2xx responses:").is_none();
    if good { Ok(()) } else { wrong(format!("not every request was answered:\n{text}")) }
}

/// Five echo requests, each answered.
///
/// # Errors
/// If an answer is missing.
pub fn ping(from: &Namespace, to: IpAddr, payload: u16) -> Result<(), CheckError> {
    let (size, to) = (payload.to_string(), to.to_string());
    let text = run(from, "ping", &["-n", "-c", "5", "-i", "0.05", "-W", "5", "-s", &size, &to])?;
    if text.contains("5 received") { Ok(()) } else { wrong(format!("a ping was not answered:\n{text}")) }
}

/// How `traceroute` asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Datagrams to ports where nobody listens.
    Udp,
    /// Echo requests.
    Icmp,
}

/// The hops that `traceroute` finds, each of which must have answered every probe.
///
/// # Errors
/// If a probe was not answered, or by several addresses for one hop.
pub fn traceroute(from: &Namespace, to: IpAddr, probe: Probe) -> Result<Vec<IpAddr>, CheckError> {
    let to = to.to_string();
    // One probe at a time: otherwise how many more are under way when the host has answered, and so how many
    // connections they leave behind, is chance.
    let mut words = vec!["-n", "-q", "2", "-N", "1", "-w", "5", "-m", "8"];
    if probe == Probe::Icmp {
        words.push("-I");
    }
    words.push(&to);
    let text = run(from, "traceroute", &words)?;
    let mut hops = Vec::new();
    for line in text.lines().skip(1) {
        let words: Vec<_> = line.split_whitespace().collect();
        // `NUMBER ADDRESS TIME ms TIME ms`
        match words.as_slice() {
            [_, address, _, "ms", _, "ms"] => match address.parse() {
                Ok(address) => hops.push(address),
                Err(_) => return wrong(format!("{address} is no address:\n{text}")),
            },
            _ => return wrong(format!("a probe was not answered as it should be:\n{text}")),
        }
    }
    Ok(hops)
}

/// The path MTU that `tracepath` finds by datagrams of falling length.
///
/// # Errors
/// If it does not reach the host.
pub fn tracepath(from: &Namespace, to: IpAddr) -> Result<u16, CheckError> {
    let text = run(from, "tracepath", &["-n", "-m", "8", &to.to_string()])?;
    let found = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("Resume: pmtu "))
        .filter(|_| text.contains("reached"))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    found.map_or_else(|| wrong(format!("tracepath did not arrive:\n{text}")), Ok)
}

/// The path MTU that the kernel has learnt for `to`, if any.
///
/// # Errors
/// If `ip` fails.
pub fn learnt_mtu(host: &Namespace, to: IpAddr) -> Result<Option<u16>, CheckError> {
    let text = host.run("ip", &["route", "get", &to.to_string()])?;
    let mut words = text.split_whitespace().skip_while(|word| *word != "mtu").skip(1);
    Ok(words.next().and_then(|word| word.parse().ok()))
}

/// A DNS server (dnsmasq) on port 53 that knows [`RECORDS`], and a TXT record that is longer than one packet.
///
/// # Errors
/// If it cannot be started.
pub fn names(namespace: &Namespace) -> Result<Background, ProcessError> {
    let mut command = namespace.command("dnsmasq");
    command.args([
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-hosts",
        "--user=root",
        "--pid-file=",
    ]);
    command.args(["--port=53", "--log-facility=-", "--edns-packet-max=4096", "--local=/test/"]).args(RECORDS);
    command.arg(format!("--txt-record=long.example.test,{}", long_text().join(",")));
    let mut server = namespace.start("dnsmasq", &mut command)?;
    wait_for(&mut server, namespace, 'u', 53)?;
    Ok(server)
}

/// Twelve strings of 200 bytes: 2400 bytes and more in one answer.
fn long_text() -> Vec<String> {
    (0..12_u8).map(|number| char::from(b'a' + number).to_string().repeat(200)).collect()
}

fn dig(from: &Namespace, server: IpAddr, name: &str, kind: &str) -> Result<Vec<String>, CheckError> {
    let server = format!("@{server}");
    let words =
        ["+short", "+notcp", "+ignore", "+tries=1", "+timeout=10", "+bufsize=4096", &server, name, kind];
    let text = run(from, "dig", &words)?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// Each of the server's records, by `dig` over UDP, one try each; the last answer comes in fragments.
///
/// # Errors
/// If an answer does not come or is not the one expected.
pub fn resolve(from: &Namespace, server: IpAddr) -> Result<(), CheckError> {
    let long: Vec<_> = long_text().iter().map(|text| format!("\"{text}\"")).collect();
    for (name, kind, wanted) in [
        ("host.example.test", "A", vec!["192.0.2.7".to_owned()]),
        ("host.example.test", "AAAA", vec!["2001:db8::7".to_owned()]),
        ("alias.example.test", "A", vec!["host.example.test.".to_owned(), "192.0.2.7".to_owned()]),
        ("nobody.example.test", "A", vec![]),
        ("long.example.test", "TXT", vec![long.join(" ")]),
    ] {
        let answer = dig(from, server, name, kind)?;
        if answer != wanted {
            return wrong(format!("{name} {kind} was answered {answer:?}, not {wanted:?}"));
        }
    }
    Ok(())
}

/// An `iperf3` server on its usual port.
///
/// # Errors
/// If it cannot be started.
pub fn measure(namespace: &Namespace) -> Result<Background, ProcessError> {
    let mut command = namespace.command("iperf3");
    let mut server = namespace.start("iperf3", command.arg("--server"))?;
    wait_for(&mut server, namespace, 't', 5201)?;
    Ok(server)
}

/// What an `iperf3` run came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Bits a second that arrived.
    pub rate: f64,
    /// Datagrams that did not arrive, in percent; 0 for TCP.
    pub lost: f64,
}

/// Runs `iperf3` for a second with further `options`.
///
/// # Errors
/// If it fails or says that it has.
pub fn throughput(from: &Namespace, to: IpAddr, options: &[&str]) -> Result<Measured, CheckError> {
    let to = to.to_string();
    let mut words = vec!["--json", "--time", "1", "--client", &to];
    words.extend(options);
    let text = run(from, "iperf3", &words)?;
    let report: serde_json::Value = match serde_json::from_str(&text) {
        Ok(report) => report,
        Err(error) => return wrong(format!("iperf3's report cannot be read: {error}\n{text}")),
    };
    if let Some(error) = report.get("error") {
        return wrong(format!("iperf3 says {error}"));
    }
    let end = |part: &str, name: &str| report["end"][part][name].as_f64();
    let (part, lost) = if options.contains(&"--udp") {
        ("sum", end("sum", "lost_percent"))
    } else {
        ("sum_received", Some(0.0))
    };
    match (end(part, "bits_per_second"), lost) {
        (Some(rate), Some(lost)) => Ok(Measured { rate, lost }),
        _ => wrong(format!("iperf3's report lacks its end:\n{text}")),
    }
}
