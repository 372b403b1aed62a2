//! The control socket's server: an acceptor thread and a bounded number of client threads, each of which reads
//! one request at a time, lets the [`Handler`] answer it, and bounds every read and write by a deadline. A
//! client can therefore only ever hold up itself; when all places are taken, the client that has idled longest
//! makes room. No lcore takes part in any of this.

use std::collections::HashMap;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing::{debug, warn};

use super::frame::{LineReader, ReadLimits, ReadLineError, write_all};
use super::protocol::{End, MAX_REQUEST_BYTES, Reply, Request, encode};
use super::socket::ControlSocket;

/// Answers requests. Called from several client threads at once.
pub trait Handler: Send + Sync {
    /// Runs one request, handing text to `out` as it comes. `out` blocks while the client is slow to read and
    /// fails when it is gone or too slow; the command should then give up.
    fn handle(&self, request: Request, out: &mut dyn FnMut(&str) -> io::Result<()>) -> End;
}

/// What clients may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Clients served at once.
    pub clients: usize,
    /// Longest request line, in bytes.
    pub request_bytes: usize,
    /// Bytes of unfinished and running requests that all clients together may hold.
    pub held_bytes: usize,
    /// How long a client may stay connected without asking anything.
    pub idle: Duration,
    /// From a request's first byte to its newline.
    pub request: Duration,
    /// For one chunk of output to be taken by the client.
    pub chunk: Duration,
    /// For the clients to take the rest of their output when the daemon ends.
    pub farewell: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            clients: 16,
            request_bytes: MAX_REQUEST_BYTES,
            held_bytes: 2 * MAX_REQUEST_BYTES,
            idle: Duration::from_secs(60),
            request: Duration::from_secs(30),
            chunk: Duration::from_secs(10),
            farewell: Duration::from_secs(1),
        }
    }
}

/// A running server. Dropping it disconnects every client, waits for their threads and removes the socket.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    waker: UnixStream,
    acceptor: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves `socket` until dropped.
    ///
    /// # Errors
    /// When the system gives no thread or socket pair.
    pub fn start(socket: ControlSocket, limits: Limits, handler: Arc<dyn Handler>) -> io::Result<Self> {
        let (waker, woken) = UnixStream::pair()?;
        socket.listener().set_nonblocking(true)?;
        let shared = Arc::new(Shared {
            limits,
            held: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            clients: Mutex::new(Clients::default()),
            left: Condvar::new(),
        });
        let inner = Arc::clone(&shared);
        let acceptor = thread::Builder::new()
            .name("control".into())
            .spawn(move || accept_until_stopped(&socket, &woken, &inner, &handler))?;
        Ok(Self { shared, waker, acceptor: Some(acceptor) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        let _ = self.waker.shutdown(Shutdown::Both);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

#[derive(Debug)]
struct Shared {
    limits: Limits,
    held: AtomicUsize,
    stopping: AtomicBool,
    clients: Mutex<Clients>,
    /// A client has given its place back.
    left: Condvar,
}

#[derive(Debug, Default)]
struct Clients {
    next_id: u64,
    places: HashMap<u64, Place>,
}

/// A connected client as the acceptor sees it.
#[derive(Debug)]
struct Place {
    stream: UnixStream,
    /// Since when it has asked nothing; `None` while a command runs.
    idle_since: Option<Instant>,
    thread: JoinHandle<()>,
}

impl Shared {
    /// A poisoned lock is used on: the map is whole after every statement.
    fn clients(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks a client busy or idle. False when its place was given to someone else meanwhile.
    fn mark(&self, id: u64, idle_since: Option<Instant>) -> bool {
        match self.clients().places.get_mut(&id) {
            Some(place) => {
                place.idle_since = idle_since;
                true
            }
            None => false,
        }
    }
}

fn accept_until_stopped(
    socket: &ControlSocket,
    woken: &UnixStream,
    shared: &Arc<Shared>,
    handler: &Arc<dyn Handler>,
) {
    while !shared.stopping.load(Ordering::Acquire) {
        let listener = socket.listener();
        let mut watched = [PollFd::new(listener, PollFlags::IN), PollFd::new(woken, PollFlags::IN)];
        if poll(&mut watched, None).is_err() {
            continue;
        }
        match listener.accept() {
            Ok((stream, _)) => admit(stream, shared, handler),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                // Out of descriptors, most likely: poll would report the waiting client again at once.
                warn!(%error, "cannot accept a control client");
                let pause = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
                let _ = poll(&mut [PollFd::new(woken, PollFlags::IN)], Some(&pause));
            }
        }
    }
    send_everyone_away(shared);
}

/// Output under way may still end, for a while; nothing more is read.
fn send_everyone_away(shared: &Shared) {
    for place in shared.clients().places.values() {
        let _ = place.stream.shutdown(Shutdown::Read);
    }
    let clients = shared.clients();
    let still_there = |clients: &mut Clients| !clients.places.is_empty();
    let waited = shared.left.wait_timeout_while(clients, shared.limits.farewell, still_there);
    let places = std::mem::take(&mut waited.unwrap_or_else(PoisonError::into_inner).0.places);
    for place in places.into_values() {
        let _ = place.stream.shutdown(Shutdown::Both);
        let _ = place.thread.join();
    }
}

/// Gives the client a place and a thread, or turns it away.
fn admit(mut stream: UnixStream, shared: &Arc<Shared>, handler: &Arc<dyn Handler>) {
    if let Err(error) = place(&stream, shared, handler) {
        warn!(%error, "control client turned away");
        let end = End::failed(2, format!("the daemon cannot take another client: {error}"));
        if let Ok(line) = encode(&Reply::End(end)) {
            // A fresh socket's buffer takes one short line without waiting.
            let _ = write_all(&mut stream, &line, Some(Duration::from_millis(10)));
        }
    }
}

fn place(stream: &UnixStream, shared: &Arc<Shared>, handler: &Arc<dyn Handler>) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    let (mut own, kept) = (stream.try_clone()?, stream.try_clone()?);
    if shared.clients().places.len() >= shared.limits.clients && !make_room(shared) {
        return Err(io::Error::other("all places are taken by running commands"));
    }
    let mut clients = shared.clients();
    let id = clients.next_id;
    clients.next_id += 1;
    let (inner, handler) = (Arc::clone(shared), Arc::clone(handler));
    // The thread cannot give its place back before it has one: that takes the lock held here.
    let thread = thread::Builder::new().name(format!("control-{id}")).spawn(move || {
        let _leave = Leave { id, shared: &inner };
        // Gone before the place is: whoever sees all places empty holds the last handler.
        let handler = handler;
        serve(id, &mut own, &inner, &*handler);
    })?;
    clients.places.insert(id, Place { stream: kept, idle_since: Some(Instant::now()), thread });
    Ok(())
}

/// Sends away the client that has asked nothing for the longest time. Its thread ends at once: with the socket
/// shut down, reads and writes return, and a request it has just read finds its place gone.
fn make_room(shared: &Shared) -> bool {
    let oldest = {
        let mut clients = shared.clients();
        let idle = clients.places.iter().filter_map(|(&id, place)| place.idle_since.map(|since| (since, id)));
        let oldest = idle.min();
        oldest.and_then(|(_, id)| clients.places.remove(&id))
    };
    let Some(place) = oldest else { return false };
    let _ = place.stream.shutdown(Shutdown::Both);
    let _ = place.thread.join();
    true
}

/// Gives the place back, even when a command panicked.
struct Leave<'a> {
    id: u64,
    shared: &'a Shared,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.shared.clients().places.remove(&self.id);
        self.shared.left.notify_all();
    }
}

/// Gives back the bytes a request holds, however its handling ends.
struct Held<'a> {
    bytes: usize,
    shared: &'a Shared,
}

impl Held<'_> {
    fn grow(&mut self, count: usize) -> bool {
        let before = self.shared.held.fetch_add(count, Ordering::Relaxed);
        self.bytes += count;
        before.saturating_add(count) <= self.shared.limits.held_bytes
    }
    fn keep(&mut self, count: usize) {
        let excess = self.bytes.saturating_sub(count);
        self.shared.held.fetch_sub(excess, Ordering::Relaxed);
        self.bytes -= excess;
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.keep(0);
    }
}

fn serve(id: u64, stream: &mut UnixStream, shared: &Shared, handler: &dyn Handler) {
    let limits = shared.limits;
    let read =
        ReadLimits { bytes: limits.request_bytes, idle: Some(limits.idle), line: Some(limits.request) };
    let mut lines = LineReader::default();
    let mut held = Held { bytes: 0, shared };
    while !shared.stopping.load(Ordering::Acquire) {
        let line = match lines.next(stream, read, |count| held.grow(count)) {
            Ok(Some(line)) => line,
            Ok(None) => return,
            Err(ReadLineError::TooSlow) if lines.held() == 0 => return,
            Err(error) => {
                debug!(%error, "control client sent no whole request");
                let end = Reply::End(End::failed(2, format!("request refused: {error}")));
                let _ = encode(&end).map(|line| write_all(stream, &line, Some(limits.chunk)));
                return;
            }
        };
        if !shared.mark(id, None) {
            return;
        }
        let end = answer(&line, stream, limits.chunk, handler);
        drop(line);
        let Ok(line) = encode(&Reply::End(end)) else { return };
        if write_all(stream, &line, Some(limits.chunk)).is_err() {
            return;
        }
        held.keep(lines.held());
        if !shared.mark(id, Some(Instant::now())) {
            return;
        }
    }
}

fn answer(line: &[u8], stream: &mut UnixStream, limit: Duration, handler: &dyn Handler) -> End {
    let request: Request = match serde_json::from_slice(line) {
        Ok(request) => request,
        Err(error) => return End::failed(2, format!("request refused: {error}")),
    };
    let mut out = |text: &str| -> io::Result<()> {
        let line = encode(&Reply::Chunk { stdout: text.to_owned() })?;
        write_all(stream, &line, Some(limit))
    };
    handler.handle(request, &mut out)
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
