//! A daemon of a test's own: its configuration, socket and captures in a private directory. It is killed and the
//! directory removed however the test ends; every wait has an end.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use weir_wire::pcap::{CaptureReader, CaptureWriter, Captured, Precision};

const WEIR: &str = env!("CARGO_BIN_EXE_weir");
const PATIENCE: Duration = Duration::from_secs(30);

/// A directory that goes with the test.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("weir-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn write(&self, name: &str, content: &str) -> String {
        fs::write(self.path(name), content).unwrap();
        self.text(name)
    }

    /// Writes a capture with a packet each microsecond.
    pub(crate) fn capture(&self, name: &str, frames: &[Vec<u8>]) -> String {
        let file = fs::File::create(self.path(name)).unwrap();
        let mut writer = CaptureWriter::new(file, Precision::Micro).unwrap();
        for (time, frame) in (0..).zip(frames) {
            writer.write(time * 1000, frame).unwrap();
        }
        writer.finish().unwrap();
        self.text(name)
    }

    /// The frames of a capture that may still be written to.
    pub(crate) fn frames(&self, name: &str) -> Vec<Vec<u8>> {
        let Ok(file) = fs::File::open(self.path(name)) else { return Vec::new() };
        let Ok(mut reader) = CaptureReader::new(file) else { return Vec::new() };
        let (mut frames, mut packet) = (Vec::new(), Captured::default());
        while reader.read_into(&mut packet).unwrap_or(false) {
            frames.push(packet.data.clone());
        }
        frames
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a command printed and its exit status.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// `weir run`.
pub(crate) struct Daemon {
    child: Child,
    socket: PathBuf,
    log: PathBuf,
    pub(crate) scratch: Scratch,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.log());
        }
    }
}

/// The settings that keep a test's daemon small; the rest of the configuration follows.
pub(crate) const SMALL: &str =
    "socket = \"weir.sock\"\nmemory_mib = 128\n[conntrack]\ncapacity = 1000\n[pool]\nmbufs = 8191\n";

/// A bridge `br0` with ports `p1`, `p2`, ... of these devices.
pub(crate) fn bridge(devices: &[&str]) -> String {
    let mut text = String::from("[[bridge]]\nname = \"br0\"\nflows = \"flows\"\n");
    for (number, device) in (1..).zip(devices) {
        text +=
            &format!("[[bridge.port]]\nname = \"p{number}\"\nnumber = {number}\ndevargs = \"{device}\"\n");
    }
    text
}

impl Daemon {
    /// Starts one and waits until it takes commands.
    pub(crate) fn start(scratch: Scratch, bridges: &str) -> Self {
        Self::start_as(scratch, &format!("{SMALL}{bridges}"), &mut Command::new(WEIR), &[])
    }

    /// As [`Daemon::start`], with a configuration of the test's own, by another command, with further options.
    pub(crate) fn start_as(scratch: Scratch, config: &str, command: &mut Command, options: &[&str]) -> Self {
        let mut daemon = Self::spawn(scratch, config, command, options);
        let begin = Instant::now();
        while UnixStream::connect(&daemon.socket).is_err() || daemon.weir("appctl version").status != 0 {
            assert!(daemon.child.try_wait().unwrap().is_none(), "it ended by itself");
            assert!(begin.elapsed() < PATIENCE, "it takes no commands");
            std::thread::sleep(Duration::from_millis(10));
        }
        daemon
    }

    /// Starts one and waits for nothing.
    pub(crate) fn spawn(scratch: Scratch, config: &str, command: &mut Command, options: &[&str]) -> Self {
        if !scratch.path("flows").exists() {
            scratch.write("flows", "priority=0,actions=normal\n");
        }
        let config = scratch.write("weir.toml", config);
        let (socket, log) = (scratch.path("weir.sock"), scratch.path("log"));
        let stderr = fs::File::create(&log).unwrap();
        let child = command
            .arg("run")
            .arg(&config)
            .args(options)
            .stdin(Stdio::null())
            .stderr(stderr)
            .spawn()
            .unwrap();
        Self { child, socket, log, scratch }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Runs `weir LINE` against it.
    pub(crate) fn weir(&self, line: &str) -> Answer {
        let words: Vec<&str> = line.split_whitespace().collect();
        self.weir_with(&words, "")
    }

    /// Runs `weir WORDS` against it, with standard input.
    pub(crate) fn weir_with(&self, words: &[&str], input: &str) -> Answer {
        let mut child = Command::new(WEIR)
            .args(words)
            .env("WEIR_SOCKET", &self.socket)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Answer { status: status.code().unwrap(), stdout: text(stdout), stderr: text(stderr) }
    }

    /// A client that asks for a long dump (of 20 000 flows) and reads none of it.
    pub(crate) fn slow_client(&self) -> UnixStream {
        let flows: String = (0..20_000).map(|n| format!("table=3,priority={n},ip,actions=drop\n")).collect();
        let file = self.scratch.write("many.flows", &flows);
        self.ok(&format!("ofctl add-flows br0 {file}"));
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        stream.write_all(b"{\"command\":\"ofctl dump-flows\",\"args\":[\"br0\"]}\n").unwrap();
        // Its answer has begun; the rest stays with the daemon.
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.read_exact(&mut [0]).unwrap();
        stream
    }

    /// Runs a command that must succeed without a word on standard error; its output.
    pub(crate) fn ok(&self, line: &str) -> String {
        let answer = self.weir(line);
        assert_eq!((answer.status, answer.stderr.as_str()), (0, ""), "{line}");
        answer.stdout
    }

    /// Runs a reading command with `--json`.
    pub(crate) fn json(&self, line: &str) -> serde_json::Value {
        let (family, rest) = line.split_once(' ').unwrap();
        serde_json::from_str(&self.ok(&format!("{family} --json {rest}"))).unwrap()
    }

    /// Waits until `condition` holds.
    pub(crate) fn until(&mut self, what: &str, mut condition: impl FnMut(&Self) -> bool) {
        let begin = Instant::now();
        while !condition(self) {
            assert!(self.child.try_wait().unwrap().is_none(), "the daemon ended by itself before {what}");
            assert!(begin.elapsed() < PATIENCE, "{what} never came about");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Counters of port `number` of br0.
    pub(crate) fn port(&self, number: u64, counter: &str) -> u64 {
        let ports = self.json("ofctl dump-ports br0");
        let port = ports.as_array().unwrap().iter().find(|port| port["number"] == number).unwrap();
        port["counters"][counter].as_u64().unwrap()
    }

    /// Packets that the flows with this cookie have seen.
    pub(crate) fn packets(&self, cookie: u64) -> u64 {
        let flows = self.json(&format!("ofctl dump-flows br0 cookie={cookie}/-1"));
        flows.as_array().unwrap().iter().map(|flow| flow["n_packets"].as_u64().unwrap()).sum()
    }

    /// Buffers in use, all pools together.
    pub(crate) fn buffers(&self) -> u64 {
        let pools = self.json("appctl netdev-dpdk/get-mempool-info");
        pools.as_array().unwrap().iter().map(|pool| pool["in_use"].as_u64().unwrap()).sum()
    }

    pub(crate) fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([format!("-{signal}"), self.pid().to_string()]).status();
        assert!(status.unwrap().success());
    }

    /// Waits for its end; exit status (128 + signal when killed by one) and log.
    pub(crate) fn wait(&mut self) -> (i32, String) {
        use std::os::unix::process::ExitStatusExt;
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
                return (code, self.log());
            }
            assert!(begin.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends it in order.
    pub(crate) fn finish(mut self) {
        self.signal("TERM");
        let (code, log) = self.wait();
        assert_eq!(code, 0, "{log}");
        assert!(!log.contains("panicked"), "{log}");
        self.leaves_nothing();
    }

    /// Neither socket nor lock nor DPDK's run time directory is left.
    pub(crate) fn leaves_nothing(&self) {
        for left in [self.socket.clone(), self.scratch.path("weir.sock.lock")] {
            assert!(!left.exists(), "{} is left", left.display());
        }
        for base in ["/var/run/dpdk", "/tmp/dpdk"] {
            let left = Path::new(base).join(format!("weir-{}", self.pid()));
            // One that is older is what a process of the same number left when it was killed.
            let changed = |path: &Path| fs::metadata(path).and_then(|data| data.modified()).ok();
            let ours = changed(&left).is_some_and(|at| Some(at) >= changed(&self.scratch.path("weir.toml")));
            assert!(!ours, "{} is left", left.display());
        }
    }
}

pub(crate) fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|line| line.split_whitespace().take(3).eq(["Uid:", "0", "0"]))
}

/// True for root; otherwise says that the test is skipped.
pub(crate) fn root_or_skip(what: &str) -> bool {
    let root = is_root();
    if !root {
        println!("skipped: {what} needs root");
    }
    root
}

/// An Ethernet frame with a UDP datagram from 10.1.0.`host`:`port` to 20.0.0.1:53, `length` bytes in all.
pub(crate) fn udp(host: u8, port: u16, length: usize) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    let ip_length = u16::try_from(length - 14).unwrap();
    let [high, low] = ip_length.to_be_bytes();
    frame.extend([0x45, 0, high, low, 0, 1, 0x40, 0, 64, 17, 0, 0, 10, 1, 0, host, 20, 0, 0, 1]);
    let [high, low] = port.to_be_bytes();
    frame.extend([high, low, 0, 53]);
    let [high, low] = (ip_length - 20).to_be_bytes();
    // Checksum 0: none.
    frame.extend([high, low, 0, 0]);
    frame.resize(length, host);
    let sum: u32 = frame[14..34].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}
