//! The control socket's place in the file system: who may open it, and what happens when something is there
//! already. The socket is bound under a private directory, given mode 0600 and only then renamed into place,
//! so there is no moment in which someone else can connect; a lock file beside it keeps two daemons that start
//! at once from removing each other's.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// The longest path a Unix socket can have (`sun_path`, with its final zero), in bytes.
const MAX_PATH_BYTES: usize = 107;
/// Room for the private directory's name in front of the socket's.
const PRIVATE_NAME_BYTES: usize = 16;

/// Why the control socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another daemon serves this socket.
    #[error("{}: another weir is running on this socket; stop it with `weir appctl -t {} exit`, or choose another socket", path.display(), path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something that is no socket has the name.
    #[error("{}: exists and is not a socket; remove it, or choose another socket", path.display())]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
    /// The kernel cannot bind a name as long as this.
    #[error("{}: {bytes} bytes are too long for a socket's path, which may have {limit}", path.display())]
    TooLong {
        /// The socket.
        path: PathBuf,
        /// Its length.
        bytes: usize,
        /// The longest there can be.
        limit: usize,
    },
    /// The operating system refused.
    #[error("{}: cannot {doing}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A listening control socket, removed from the file system with its lock when dropped.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode, so that only our own socket is removed.
    identity: (u64, u64),
    /// Held locked for as long as the daemon lives; the kernel releases it however the process ends.
    _lock: Lock,
}

impl ControlSocket {
    /// Binds and listens. The directory is made (mode 0755) when missing; a socket that nobody listens on any
    /// more is replaced.
    ///
    /// # Errors
    /// [`SocketError`].
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let limit = MAX_PATH_BYTES - PRIVATE_NAME_BYTES;
        let bytes = path.as_os_str().len();
        if bytes > limit {
            return Err(SocketError::TooLong { path: path.to_owned(), bytes, limit });
        }
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&directory)
            .map_err(fail("create the directory", &directory))?;
        let lock = Lock::beside(path)?;
        clear_stale(path)?;

        let private = directory.join(format!(".{:x}", std::process::id()));
        let _ = fs::remove_dir_all(&private);
        DirBuilder::new().mode(0o700).create(&private).map_err(fail("create a directory", &private))?;
        let hidden = private.join("s");
        let bound = (|| {
            let listener = UnixListener::bind(&hidden).map_err(fail("bind", path))?;
            fs::set_permissions(&hidden, Permissions::from_mode(0o600)).map_err(fail("chmod", path))?;
            fs::rename(&hidden, path).map_err(fail("put the socket", path))?;
            let metadata = fs::symlink_metadata(path).map_err(fail("look at", path))?;
            Ok((listener, (metadata.dev(), metadata.ino())))
        })();
        let _ = fs::remove_dir_all(&private);
        let (listener, identity) = bound?;
        Ok(Self { listener, path: path.to_owned(), identity, _lock: lock })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn listener(&self) -> &UnixListener {
        &self.listener
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.identity);
        if ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn fail(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SocketError {
    let path = path.to_owned();
    move |source| SocketError::Io { doing, path, source }
}

/// The lock file beside a socket, locked; removed when dropped.
#[derive(Debug)]
struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Locks `PATH.lock`. Whoever ends removes the file, so a lock counts only while the name still leads to what was
    /// locked: otherwise a second daemon might hold the removed file and a third a new one.
    fn beside(socket: &Path) -> Result<Self, SocketError> {
        let mut name = socket.as_os_str().to_owned();
        name.push(".lock");
        let path = PathBuf::from(name);
        loop {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
                .map_err(fail("open the lock file", &path))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Err(SocketError::InUse { path: socket.to_owned() });
                }
                Err(error) => return Err(fail("lock", &path)(error.into())),
            }
            let lock = Self { file, path: path.clone() };
            if lock.is_in_place() {
                return Ok(lock);
            }
        }
    }

    fn is_in_place(&self) -> bool {
        let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let (Ok(ours), Ok(named)) = (self.file.metadata(), fs::metadata(&self.path)) else {
            return false;
        };
        identity(ours) == identity(named)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Removed while still locked: nobody can have locked the same file meanwhile.
        if self.is_in_place() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes a socket nobody listens on; leaves anything else alone.
fn clear_stale(path: &Path) -> Result<(), SocketError> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(fail("look at", path)(error)),
    };
    if !metadata.file_type().is_socket() {
        return Err(SocketError::NotASocket { path: path.to_owned() });
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(SocketError::InUse { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(fail("remove the stale socket", path))
        }
        Err(error) => Err(fail("tell whether someone listens on", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing::Scratch;

    #[test]
    fn the_socket_is_for_its_owner_alone_and_goes_when_the_daemon_goes() {
        let scratch = Scratch::new();
        let path = scratch.join("run/weir.sock");
        let socket = ControlSocket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(UnixStream::connect(&path).is_ok());
        drop(socket);
        assert!(!path.exists());
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0, "nor does the lock stay");
    }

    #[test]
    fn a_second_daemon_on_the_same_socket_is_refused_and_the_first_goes_on() {
        let scratch = Scratch::new();
        let path = scratch.join("weir.sock");
        let first = ControlSocket::bind(&path).unwrap();
        let error = ControlSocket::bind(&path).unwrap_err();
        assert!(matches!(error, SocketError::InUse { .. }), "{error}");
        assert!(UnixStream::connect(first.path()).is_ok());
    }

    #[test]
    fn a_socket_nobody_listens_on_is_replaced() {
        let scratch = Scratch::new();
        let path = scratch.join("weir.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let _socket = ControlSocket::bind(&path).unwrap();
        assert!(UnixStream::connect(&path).is_ok());
    }

    #[test]
    fn a_listening_stranger_and_a_plain_file_are_left_alone() {
        let scratch = Scratch::new();
        let path = scratch.join("weir.sock");
        let stranger = UnixListener::bind(&path).unwrap();
        assert!(matches!(ControlSocket::bind(&path).unwrap_err(), SocketError::InUse { .. }));
        drop(stranger);
        let plain = scratch.join("plain");
        fs::write(&plain, "precious").unwrap();
        assert!(matches!(ControlSocket::bind(&plain).unwrap_err(), SocketError::NotASocket { .. }));
        assert_eq!(fs::read_to_string(&plain).unwrap(), "precious");
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_named_as_such() {
        let path = PathBuf::from(format!("/tmp/{}", "x".repeat(120)));
        assert!(matches!(ControlSocket::bind(&path).unwrap_err(), SocketError::TooLong { .. }));
    }
}
