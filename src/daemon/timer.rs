//! Once a second: flows whose timeout has passed leave the tables, and stations that have gone silent are
//! forgotten.

use std::io;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::lock;
use super::state::State;

/// The timer's thread; dropping it ends it.
#[derive(Debug)]
pub(super) struct Timer {
    end: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Timer {
    pub(super) fn start(state: Arc<Mutex<State>>) -> io::Result<Self> {
        let (end, ended) = sync_channel::<()>(0);
        let thread = std::thread::Builder::new().name("timer".into()).spawn(move || {
            while ended.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
                lock(&state).expire();
            }
        })?;
        Ok(Self { end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
