//! What does a private server have on disk? A home: its data, its log, and the files through which processes
//! coordinate.
//!
//! | file | meaning |
//! |---|---|
//! | `running.lock` | the lock is held as long as the server or its keeper lives |
//! | `start.lock` | the lock is held while a process starts or stops the server |
//! | `users` | every process that uses the server holds a shared lock on it |
//! | `stop`, `kill`, `pause`, `resume` | an order to the keeper; the file exists until the order is carried out |
//! | `port`, `password`, `log` | the server's port, password and log |

use std::{
    fs::{self, File, TryLockError},
    io,
    net::TcpListener,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime},
};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use crate::port;

/// The folder of one private server.
#[derive(Clone, Debug)]
pub struct Home {
    /// The path of the folder.
    pub path: PathBuf,
    /// The user that runs the server, if it is not our own: PostgreSQL refuses to run as root.
    pub account: Option<Account>,
}

/// A user of the system.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Account {
    /// Its number.
    pub uid: u32,
    /// Its group's number.
    pub gid: u32,
}

/// An order to a keeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Stop the server cleanly.
    Stop,
    /// SIGKILL to all of its processes at once.
    Kill,
    /// SIGSTOP to all of its processes: they keep their connections and answer nothing.
    Pause,
    /// SIGCONT: ends the pause.
    Resume,
}

impl Order {
    /// All of them.
    pub const EVERY: [Self; 4] = [Self::Stop, Self::Kill, Self::Pause, Self::Resume];
}

impl Home {
    /// The home of this name among those of the private servers.
    pub fn new(name: &Path, refuses_root: bool) -> anyhow::Result<Self> {
        let mut parent = parent()?;
        let root = rustix::process::geteuid().is_root();
        let account = if refuses_root && root { Some(unprivileged()?) } else { None };
        if account.is_some() && !everyone_can_reach(&parent)? {
            // For example, the checkout is under /root. Each checkout gets its own folder in /var/tmp.
            let words = parent.to_string_lossy().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
            parent = PathBuf::from(format!("/var/tmp/worked-answers{words}"));
            make_our_own(&parent)?;
        }
        Ok(Self { path: parent.join(name), account })
    }

    /// Makes the folder. Only the server's user can read it.
    pub fn create(&self) -> anyhow::Result<()> {
        self.refuse_what_we_did_not_make()?;
        self.refuse_the_homes_of_others()?;
        let make = || {
            make_folders(&self.path)?;
            fs::set_permissions(&self.path, fs::Permissions::from_mode(0o700))?;
            self.give(&self.path)
        };
        make().with_context(|| format!("cannot make {}", self.path.display()))
    }

    /// `STACK_DIR` may name a folder with a `redis` of the reader's. A home of ours has one of these lock files from
    /// its first start on.
    fn refuse_what_we_did_not_make(&self) -> anyhow::Result<()> {
        let is_free = match self.path.read_dir() {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) => error.kind() != io::ErrorKind::NotADirectory,
        };
        let is_ours = ["start.lock", "owner.lock"].iter().any(|it| self.path.join(it).exists());
        if !is_free && !is_ours {
            bail!(
                "{} was not made here, so it is left alone; name another folder with STACK_DIR",
                self.path.display()
            );
        }
        Ok(())
    }

    /// A copy of `target/` belongs to the user who copied it, and then the server's user cannot read its data.
    fn refuse_the_homes_of_others(&self) -> anyhow::Result<()> {
        let expected = self.account.map_or(rustix::process::geteuid().as_raw(), |it| it.uid);
        let Ok(entries) = self.path.read_dir() else { return Ok(()) };
        let folders = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
        for folder in folders.chain([self.path.clone()]) {
            let owner = fs::metadata(&folder)?.uid();
            if owner != expected && folder.read_dir().is_ok_and(|mut it| it.next().is_some()) {
                bail!(
                    "{} belongs to the user {owner}, but its server runs as the user {expected}: it was made by \
                     another user, or is a copy. Run `rm -rf {}` to start with a fresh one",
                    folder.display(),
                    self.path.display(),
                );
            }
        }
        Ok(())
    }

    /// Writes a file that the server's user can read, and nobody else.
    pub fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.write_for_us(name, text)?;
        self.give(&path).with_context(|| format!("cannot give away {}", path.display()))?;
        Ok(path)
    }

    /// Writes a file that only our own user can read.
    pub fn write_for_us(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.path.join(name);
        let write = || {
            let _ = fs::remove_file(&path);
            let options = File::options().write(true).create_new(true).mode(0o600).open(&path);
            io::Write::write_all(&mut options?, text.as_bytes())
        };
        write().with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Gives a file to the server's user.
    pub fn give(&self, path: &Path) -> io::Result<()> {
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

    /// Takes the lock `running.lock`, if it is free.
    pub fn claim(&self) -> anyhow::Result<Option<File>> {
        let lock = self.lock_file("running.lock")?;
        // A process in `is_running` holds it for a moment.
        for _ in 0..3 {
            match lock.try_lock() {
                Ok(()) => return Ok(Some(lock)),
                Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(2)),
                Err(TryLockError::Error(error)) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// Whether the server, or its keeper, lives.
    pub fn is_running(&self) -> anyhow::Result<bool> {
        if !self.path.join("running.lock").exists() {
            return Ok(false);
        }
        // A shared lock, so that two processes that call this do not take each other for the server.
        match self.lock_file("running.lock")?.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error.into()),
        }
    }

    /// Registers this process as a user: the server runs as long as the file is open. `None` while the keeper checks
    /// for users, or stops the server.
    pub fn enter(&self) -> anyhow::Result<Option<File>> {
        let users = self.lock_file("users")?;
        match users.try_lock_shared() {
            Ok(()) => {
                users.set_modified(SystemTime::now())?;
                Ok(Some(users))
            }
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error.into()),
        }
    }

    /// Gives an order to the keeper. Its file is there until the order has been carried out, or until the next start.
    pub fn order(&self, order: Order) -> anyhow::Result<PathBuf> {
        let file = self.order_file(order);
        File::create(&file).with_context(|| format!("cannot make {}", file.display()))?;
        Ok(file)
    }

    /// The file of an order.
    pub fn order_file(&self, order: Order) -> PathBuf {
        self.path.join(match order {
            Order::Stop => "stop",
            Order::Kill => "kill",
            Order::Pause => "pause",
            Order::Resume => "resume",
        })
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

    /// A free port: the previous one if it is still free, so that the server's address stays the same.
    pub fn free_port(&self) -> anyhow::Result<u16> {
        let last = self.read("port").ok().and_then(|port| port.parse().ok()).unwrap_or(0);
        let is_free = last != 0 && TcpListener::bind(("127.0.0.1", last)).is_ok();
        let port = if is_free { last } else { port::free()? };
        self.write("port", &port.to_string())?;
        Ok(port)
    }

    /// The last lines of the server's log.
    pub fn log_tail(&self) -> String {
        tail(&self.path.join("log"))
    }
}

/// The workspace's folder when this was compiled. Cargo compiles again if the folder moves.
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
        .map_or_else(|| Ok(workspace().join("target/stack")), std::path::absolute)?;
    make_folders(&parent).with_context(|| format!("cannot make {}", parent.display()))?;
    Ok(parent)
}

/// Makes a folder and its missing parents. Every user can pass through them, whatever the umask is.
fn make_folders(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_folders(parent)?;
    }
    match fs::create_dir(path) {
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(0o755)),
        // Another process has just made it.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes a folder in a place where every user can make one, or makes sure that the existing one is ours.
fn make_our_own(path: &Path) -> anyhow::Result<()> {
    make_folders(path).with_context(|| format!("cannot make {}", path.display()))?;
    // The metadata of the link itself, if it is one.
    let found = fs::symlink_metadata(path)?;
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
        bail!(
            "{} is a link or belongs to another user, so PostgreSQL's data is not safe there. Have it removed, or \
             name another folder with STACK_DIR",
            path.display()
        );
    }
    Ok(())
}

/// The last lines of a log.
pub fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

/// Whether every user can pass through every folder on the path.
fn everyone_can_reach(path: &Path) -> io::Result<bool> {
    for folder in path.canonicalize()?.ancestors() {
        if fs::metadata(folder)?.mode() & 0o001 == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The user for a server that refuses to run as root.
fn unprivileged() -> anyhow::Result<Account> {
    let users = fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
    let accounts = ["postgres", "_postgres", "nobody"];
    accounts.iter().find_map(|name| account(&users, name)).context(
        "PostgreSQL refuses to run as root, and this system has no user postgres, _postgres or nobody",
    )
}

/// Reads a user's line in `/etc/passwd`.
fn account(users: &str, name: &str) -> Option<Account> {
    // On macOS `nobody` has the number -2.
    let number =
        |text: &str| text.parse().ok().or_else(|| text.parse().map(i32::cast_unsigned).ok());
    users.lines().find_map(|user| match user.split(':').collect::<Vec<_>>()[..] {
        [found, _, uid, gid, ..] if found == name => {
            Some(Account { uid: number(uid)?, gid: number(gid)? })
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_of_macos_has_a_negative_number() {
        let users = "# a comment\nnobody:*:-2:-2:Unprivileged User:/var/empty:/usr/bin/false\n\
                     _postgres:*:216:216:PostgreSQL Server:/var/empty:/usr/bin/false\n";
        let nobody = account(users, "nobody").unwrap();
        assert_eq!((nobody.uid, nobody.gid), (4_294_967_294, 4_294_967_294));
        assert_eq!(account(users, "_postgres").unwrap().uid, 216);
        assert!(account(users, "postgres").is_none());
    }
}
