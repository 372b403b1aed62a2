//! The server against clients that misbehave.

use std::io::{Read, Write};
use std::sync::mpsc;

use super::*;
use crate::control::client::Client;
use crate::control::testing::Scratch;

/// Repeats its first argument as often as the second one says; `panic` panics, `wait` waits for the test.
struct Echo {
    wait: Mutex<mpsc::Receiver<()>>,
}

impl Handler for Echo {
    fn handle(&self, request: Request, out: &mut dyn FnMut(&str) -> io::Result<()>) -> End {
        match request.command.as_str() {
            "panic" => panic!("as asked"),
            "wait" => drop(self.wait.lock().unwrap().recv()),
            "size" => drop(out(&request.files.values().map(String::len).sum::<usize>().to_string())),
            _ => {
                let times = request.args.get(1).map_or(1, |n| n.parse().unwrap());
                for _ in 0..times {
                    if let Err(error) = out(&request.args[0]) {
                        return End::failed(2, error.to_string());
                    }
                }
            }
        }
        End::default()
    }
}

struct Rig {
    server: Server,
    release: mpsc::Sender<()>,
    path: std::path::PathBuf,
    _scratch: Scratch,
}

const SHORT: Duration = Duration::from_millis(100);

fn rig(limits: Limits) -> Rig {
    let scratch = Scratch::new();
    let path = scratch.join("weir.sock");
    let (release, wait) = mpsc::channel();
    let socket = ControlSocket::bind(&path).unwrap();
    let server = Server::start(socket, limits, Arc::new(Echo { wait: Mutex::new(wait) })).unwrap();
    Rig { server, release, path, _scratch: scratch }
}

fn short() -> Limits {
    Limits {
        clients: 4,
        request_bytes: 1 << 20,
        held_bytes: 2 << 20,
        idle: Duration::from_secs(20),
        request: SHORT,
        chunk: SHORT,
        farewell: SHORT,
    }
}

impl Rig {
    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    fn echo(&self, text: &str, times: usize) -> (String, End) {
        let request = Request {
            command: "echo".into(),
            args: vec![text.into(), times.to_string()],
            ..Request::default()
        };
        self.call(&request)
    }

    fn call(&self, request: &Request) -> (String, End) {
        let mut output = String::new();
        let mut client = Client::connect(&self.path, Some(Duration::from_secs(20))).unwrap();
        let end = client
            .call(request, &mut |text| {
                output.push_str(text);
                Ok(())
            })
            .unwrap();
        (output, end)
    }

    /// Sends bytes and returns everything the server says until it hangs up.
    fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    }

    /// Waits for the server's clients to be as described.
    fn until(&self, holds: impl Fn(&Clients) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !holds(&self.server.shared.clients()) {
            assert!(Instant::now() < deadline, "waited in vain");
            std::thread::yield_now();
        }
    }

    fn still_serves(&self) {
        assert_eq!(self.echo("alive", 1), ("alive".into(), End::default()));
    }
}

#[test]
fn output_streams_in_order_and_several_requests_share_a_connection() {
    let rig = rig(short());
    let (output, end) = rig.echo("abc", 10_000);
    assert_eq!((output.len(), end), (30_000, End::default()));
    let answers =
        rig.raw(b"{\"command\":\"echo\",\"args\":[\"a\"]}\n{\"command\":\"echo\",\"args\":[\"b\"]}\n");
    assert_eq!(answers.lines().count(), 4, "{answers}");
}

#[test]
fn garbage_is_answered_with_an_error_and_harms_nobody() {
    let rig = rig(short());
    for bytes in [
        &b"\n"[..],
        b"hello\n",
        b"{}\n",
        b"\xff\xfe\x00\n",
        b"{\"command\":1}\n",
        b"{\"command\":\"echo\",\"args\":\"x\"}\n",
        "[".repeat(100_000).as_bytes(),
        format!("{}\n", "[".repeat(100_000)).as_bytes(),
    ] {
        let answer = rig.raw(bytes);
        assert!(answer.contains("request refused"), "{:?} got {answer:?}", String::from_utf8_lossy(bytes));
        rig.still_serves();
    }
    assert_eq!(rig.raw(b""), "");
}

#[test]
fn half_a_request_is_given_up_in_time() {
    let rig = rig(short());
    let mut stream = rig.connect();
    stream.write_all(b"{\"command\":").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("in time"), "{answer}");
    rig.still_serves();
}

#[test]
fn a_request_over_the_limit_is_refused() {
    let rig = rig(short());
    let answer = rig.raw(&vec![b'x'; 3 << 20]);
    assert!(answer.is_empty() || answer.contains("longer than"), "{answer}");
    rig.still_serves();
}

#[test]
fn a_large_file_arrives_whole_and_its_room_is_given_back() {
    let rig = rig(Limits { request: Duration::from_secs(20), ..short() });
    let request = Request {
        command: "size".into(),
        files: [("f".to_owned(), "x".repeat(1_000_000))].into(),
        ..Request::default()
    };
    for _ in 0..5 {
        assert_eq!(rig.call(&request).0, "1000000");
    }
}

#[test]
fn a_client_that_never_reads_loses_its_connection_and_others_do_not_wait() {
    let rig = rig(short());
    let deaf = rig.connect();
    let text = "x".repeat(60_000);
    (&deaf).write_all(format!("{{\"command\":\"e\",\"args\":[\"{text}\",\"1000\"]}}\n").as_bytes()).unwrap();
    rig.still_serves();
    // The server gives up on the deaf one: its place becomes free without a byte read.
    rig.until(|clients| clients.places.is_empty());
    let (mut reader, mut sink, mut total) = (&deaf, vec![0; 1 << 20], 0);
    while let Ok(count @ 1..) = reader.read(&mut sink) {
        total += count;
    }
    assert!(total < 60_000 * 1000, "{total}");
}

#[test]
fn idle_clients_make_room_for_one_that_asks() {
    let rig = rig(short());
    let idle: Vec<_> = (0..50).map(|_| rig.connect()).collect();
    rig.still_serves();
    let mut first = idle.first().unwrap();
    assert_eq!(first.read(&mut [0; 8]).unwrap(), 0, "the longest idle was sent away");
}

#[test]
fn running_commands_are_never_thrown_out_and_the_next_client_is_told() {
    let rig = rig(short());
    let mut busy: Vec<_> = (0..4).map(|_| rig.connect()).collect();
    // All four run: each has its place marked as busy once the handler waits. One that were still idle would
    // be sent away, so wait until the server says that it has no place to give.
    for stream in &mut busy {
        stream.write_all(b"{\"command\":\"wait\"}\n").unwrap();
    }
    rig.until(|clients| {
        clients.places.len() == 4 && clients.places.values().all(|place| place.idle_since.is_none())
    });
    assert!(rig.raw(b"").contains("taken by running commands"));
    for _ in 0..4 {
        rig.release.send(()).unwrap();
    }
    for stream in &mut busy {
        let mut answer = [0; 64];
        let count = stream.read(&mut answer).unwrap();
        assert!(String::from_utf8_lossy(&answer[..count]).contains("\"exit\":0"));
    }
    rig.still_serves();
}

#[test]
fn a_command_that_panics_takes_only_its_own_client_along() {
    let rig = rig(short());
    for _ in 0..10 {
        assert_eq!(rig.raw(b"{\"command\":\"panic\"}\n"), "");
    }
    rig.still_serves();
}

#[test]
fn stopping_disconnects_idle_clients_and_removes_the_socket() {
    let rig = rig(short());
    let mut stream = rig.connect();
    rig.still_serves();
    let Rig { server, path, .. } = rig;
    drop(server);
    assert!(!path.exists());
    assert_eq!(stream.read(&mut [0; 8]).unwrap_or(0), 0);
}
