//! What does a private server own on disk? A home: its data, its log, and the files by which processes
//! agree on it.
//!
//! | file | meaning |
//! |---|---|
//! | `running.lock` | locked by the kernel as long as the server or its keeper lives |
//! | `start.lock` | held while somebody starts or stops it |
//! | `users` | the FIFO that every user holds open (see `keeper.sh`) |
//! | `port`, `password`, `pid`, `log` | what they say |

use std::{
    fs::{self, File, TryLockError},
    io,
    net::TcpListener,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

use crate::port;

/// The folder of one private server.
#[derive(Clone, Debug)]
pub struct Home {
    /// Where.
    pub path: PathBuf,
    /// Who runs it, where that is not ourselves: PostgreSQL refuses to run as root.
    pub account: Option<Account>,
}

/// A user of the system.
#[derive(Clone, Copy, Debug)]
pub struct Account {
    /// Its number.
    pub uid: u32,
    /// Its group's number.
    pub gid: u32,
}

impl Home {
    /// The home of this name among those of the private servers.
    pub fn new(name: &Path, refuses_root: bool) -> anyhow::Result<Self> {
        let mut parent = parent()?;
        let root = rustix::process::geteuid().is_root();
        let account = if refuses_root && root { Some(unprivileged()?) } else { None };
        if account.is_some() && !everyone_can_reach(&parent)? {
            // For example a checkout under /root. One folder for each checkout.
            let words = parent.to_string_lossy().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
            parent = PathBuf::from(format!("/var/tmp/worked-answers{words}"));
        }
        Ok(Self { path: parent.join(name), account })
    }

    /// Makes the folder, readable by nobody but the server's user.
    pub fn create(&self) -> anyhow::Result<()> {
        let make = || {
            fs::create_dir_all(&self.path)?;
            // Its keeper removes a home of one's own at the end, and for that has to own the folder above.
            if let Some(parent) = self.path.parent().filter(|parent| parent.ends_with("own")) {
                self.give(parent)?;
            }
            fs::set_permissions(&self.path, fs::Permissions::from_mode(0o700))?;
            self.give(&self.path)
        };
        make().with_context(|| format!("cannot make {}", self.path.display()))
    }

    /// Writes a file that the server's user can read, and nobody else.
    pub fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.path.join(name);
        let write = || {
            let _ = fs::remove_file(&path);
            let options = File::options().write(true).create_new(true).mode(0o600).open(&path);
            io::Write::write_all(&mut options?, text.as_bytes())?;
            self.give(&path)
        };
        write().with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    fn give(&self, path: &Path) -> io::Result<()> {
        match self.account {
            Some(account) => chown(path, Some(account.uid), Some(account.gid)),
            None => Ok(()),
        }
    }

    /// A file of the home, as text.
    pub fn read(&self, name: &str) -> anyhow::Result<String> {
        let path = self.path.join(name);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(text.trim().to_owned())
    }

    /// Opens one of the lock files.
    pub fn lock_file(&self, name: &str) -> anyhow::Result<File> {
        let path = self.path.join(name);
        let file = File::options().create(true).append(true).mode(0o600).open(&path);
        file.with_context(|| format!("cannot open {}", path.display()))
    }

    /// The lock that says "it runs", if nobody has it.
    pub fn claim(&self) -> anyhow::Result<Option<File>> {
        let lock = self.lock_file("running.lock")?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(lock)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error.into()),
        }
    }

    /// Whether the server, or its keeper, lives.
    pub fn is_running(&self) -> anyhow::Result<bool> {
        Ok(self.path.join("running.lock").exists() && self.claim()?.is_none())
    }

    /// Becomes a user: as long as the file is open, the server stays. `None` while nobody listens.
    pub fn enter(&self) -> anyhow::Result<Option<File>> {
        let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits())?;
        let users = File::options().write(true).custom_flags(flags).open(self.path.join("users"));
        match users {
            Ok(users) => Ok(Some(users)),
            // No reader yet, or no FIFO yet or any more.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => {
                Ok(None)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| self.path.display().to_string()),
        }
    }

    /// The password, made on first use.
    pub fn password(&self) -> anyhow::Result<String> {
        if let Ok(password) = self.read("password") {
            return Ok(password);
        }
        let password = format!("{:032x}", rand::random::<u128>());
        self.write("password", &password)?;
        Ok(password)
    }

    /// A free port: the last one, if nobody has taken it, so that addresses last.
    pub fn free_port(&self) -> anyhow::Result<u16> {
        let last = self.read("port").ok().and_then(|port| port.parse().ok()).unwrap_or(0);
        let is_free = last != 0 && TcpListener::bind(("127.0.0.1", last)).is_ok();
        let port = if is_free { last } else { port::free()? };
        self.write("port", &port.to_string())?;
        Ok(port)
    }

    /// The server's own words about itself, lately.
    pub fn log_tail(&self) -> String {
        tail(&self.path.join("log"))
    }
}

/// The workspace's folder: where it was when this was compiled, and cargo compiles again when it moves.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").components().fold(
        PathBuf::new(),
        |mut path, part| {
            if part.as_os_str() == ".." {
                path.pop();
            } else {
                path.push(part);
            }
            path
        },
    )
}

/// The folder of all private servers: `target/stack`, unless `STACK_DIR` names another.
pub fn parent() -> anyhow::Result<PathBuf> {
    let parent = std::env::var_os("STACK_DIR")
        .map_or_else(|| workspace().join("target/stack"), PathBuf::from);
    fs::create_dir_all(&parent).with_context(|| format!("cannot make {}", parent.display()))?;
    Ok(parent)
}

/// The last lines of a log.
pub fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

/// Whether every folder on the way lets every user through.
fn everyone_can_reach(path: &Path) -> io::Result<bool> {
    for folder in path.canonicalize()?.ancestors() {
        if fs::metadata(folder)?.mode() & 0o001 == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The user that PostgreSQL runs as when we are root.
fn unprivileged() -> anyhow::Result<Account> {
    let users = fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
    for wanted in ["postgres", "nobody"] {
        for user in users.lines() {
            let fields: Vec<_> = user.split(':').collect();
            if let [name, _, uid, gid, ..] = fields[..]
                && name == wanted
            {
                return Ok(Account { uid: uid.parse()?, gid: gid.parse()? });
            }
        }
    }
    bail!("PostgreSQL refuses to run as root, and there is neither a user postgres nor nobody")
}
