//! Who cleans up after a process that was killed? The next process, and it knows exactly what to delete.
//!
//! Before a process makes anything with a random name on a server, it writes that name into a file under
//! `target/stack/made` and keeps the file locked. It removes the file after it has deleted the thing. The kernel
//! releases the lock however the process ends. So a file without a lock names what a dead process left behind.
//!
//! Invariant: clean-up deletes only what such a file names, or what bears our mark and is older than a [`DAY`]. The
//! beginning of a name alone is never a reason to delete something.
//!
//! Why not a lock on the server? PostgreSQL's advisory locks are per database: two processes whose URLs name different
//! databases of one server do not see each other's. Behind a pooler, no session belongs to one client, so no session
//! can hold a lock for it. RabbitMQ cannot even list what is left. A heartbeat would work, but a paused process, or a
//! sleeping laptop, misses it. The lock on a file has none of these faults. Two cases it does not cover: another
//! machine, and a `target/` that was deleted. There the mark and the day decide.

use std::{
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    time::Duration,
};

use anyhow::Context;
use serde::{Serialize, de::DeserializeOwned};
use url::Url;

use crate::{Service, stack};

/// After this age, what bears our mark belongs to no running process: no experiment and no test takes a day.
pub(crate) const DAY: Duration = Duration::from_hours(24);
/// A file that is older than this is removed: its server has not been used since.
const FORGOTTEN: Duration = Duration::from_hours(30 * 24);

/// A locked file that names something that this process makes on a server.
#[derive(Debug)]
pub(crate) struct Claim {
    path: PathBuf,
    /// The lock lasts as long as the file is open.
    locked: File,
}

impl Claim {
    /// Writes down what is about to be made.
    pub(crate) fn stake(
        service: Service,
        server: &str,
        names: &impl Serialize,
    ) -> anyhow::Result<Self> {
        let name = format!("{}{:016x}", file_prefix(service, server), rand::random::<u64>());
        let path = folder()?.join(name);
        let locked = write_locked(&path, names)?;
        Ok(Self { path, locked })
    }

    /// Replaces what is written down.
    pub(crate) fn amend(&mut self, names: &impl Serialize) -> anyhow::Result<()> {
        // The old file is let go only after the new one is locked.
        self.locked = write_locked(&self.path, names)?;
        Ok(())
    }

    /// Removes the file. Call this after the thing was deleted.
    pub(crate) fn release(self) {
        // If this fails, the next process finds the file, and nothing to delete.
        let _ = fs::remove_file(&self.path);
    }
}

/// What dead processes have left behind on this server, with claims that are now ours.
pub(crate) fn left_behind<T: DeserializeOwned>(
    service: Service,
    server: &str,
) -> anyhow::Result<Vec<(Claim, T)>> {
    let (prefix, mut left) = (file_prefix(service, server), Vec::new());
    for entry in fs::read_dir(folder()?)?.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if !is_claim(&name) {
            continue;
        }
        // It belongs to another user, or was just removed.
        let Ok(file) = File::open(&path) else { continue };
        if file.try_lock().is_err() {
            continue;
        }
        let age = file.metadata()?.modified()?.elapsed().unwrap_or_default();
        if name.starts_with(&prefix)
            && let Ok(names) = serde_json::from_reader(&file)
        {
            left.push((Claim { path, locked: file }, names));
        } else if age > FORGOTTEN {
            let _ = fs::remove_file(path);
        }
    }
    Ok(left)
}

/// The folder of these files.
fn folder() -> anyhow::Result<PathBuf> {
    let folder = stack::folder()?.join("made");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

/// The file's name contains a hash of the server's URL. The URL itself may hold a password.
fn file_prefix(service: Service, server: &str) -> String {
    format!("{}-{}-", service.about().word, fingerprint(&place(service, server)))
}

/// Whether [`Claim::stake`] gave this file its name; it may still be a draft. `STACK_DIR` may name a folder with a
/// `made` of the reader's.
fn is_claim(name: &str) -> bool {
    let parts: Vec<_> = name.trim_end_matches(".draft").split('-').collect();
    let is_word = |word: &str| Service::EVERY.iter().any(|service| service.about().word == word);
    matches!(parts[..], [word, server, random]
        if is_word(word) && is_sixteen_digits(server) && is_sixteen_digits(random))
}

/// The server's URL without the user and the password; for PostgreSQL, also without the database.
fn place(service: Service, server: &str) -> String {
    let Ok(mut url) = Url::parse(server) else { return server.to_owned() };
    // These fail only for URLs that cannot have a user.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    if service == Service::Postgres {
        url.set_path("");
    }
    url.into()
}

/// Sixteen hexadecimal digits that stand for the value, in every process built by the same compiler.
pub(crate) fn fingerprint(value: &impl Hash) -> String {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Whether these are the sixteen hexadecimal digits of a random name.
pub(crate) fn is_sixteen_digits(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'))
}

/// Locks the file before it gives the file its name, so no process finds it unlocked.
fn write_locked(path: &PathBuf, names: &impl Serialize) -> anyhow::Result<File> {
    let write = || {
        let draft = path.with_extension("draft");
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.lock()?;
        file.write_all(&serde_json::to_vec(names)?)?;
        fs::rename(&draft, path)?;
        io::Result::Ok(file)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn a_server_is_the_same_whichever_database_and_user_the_url_names() {
        let [one, two] = ["postgres://a:secret@host:5433/shop", "postgres://b@host:5433/postgres"]
            .map(|url| file_prefix(Service::Postgres, url));
        assert_eq!(one, two);
        let other = file_prefix(Service::Postgres, "postgres://a:secret@host:5434/shop");
        assert_ne!(one, other);
        // Each number of Redis is a separate database.
        let [one, two] = ["redis://h/0", "redis://h/1"].map(|url| file_prefix(Service::Redis, url));
        assert_ne!(one, two);
    }

    #[test]
    fn what_a_living_process_made_is_not_left_behind_and_what_it_dropped_is() {
        // There is no such server: the test needs only the file.
        let server = format!("redis://nowhere-{:x}/", rand::random::<u64>());
        let left = || left_behind::<Vec<String>>(Service::Redis, &server).unwrap();
        let mut claim = Claim::stake(Service::Redis, &server, &["one"]).unwrap();
        assert!(left().is_empty(), "it is locked");
        claim.amend(&["one", "two"]).unwrap();
        assert!(left().is_empty(), "it is locked after it was written again");
        // As if the process had died: the lock goes, the file stays.
        drop(claim);
        let mut found = left();
        let (claim, names) = found.pop().unwrap();
        assert_eq!(names, ["one", "two"]);
        assert!(left().is_empty(), "it is ours now");
        claim.release();
        assert!(left().is_empty(), "it is gone");
    }

    #[test]
    fn only_a_file_with_the_name_of_a_claim_is_ever_removed() {
        let digits = "0123456789abcdef";
        let ours = format!("redis-{digits}-{digits}");
        assert!(is_claim(&ours) && is_claim(&format!("{ours}.draft")));
        for other in [
            "notes",
            &ours[1..],
            &format!("my-{ours}"),
            &format!("{ours}.txt"),
            &format!("recipe-{digits}-{digits}"),
            &format!("redis-{digits}-mine"),
        ] {
            assert!(!is_claim(other), "{other}");
        }
        // A file of the reader's, old enough that a claim of this age would be removed.
        let path = folder().unwrap().join(format!("notes-{:016x}", rand::random::<u64>()));
        let old = SystemTime::now() - 2 * FORGOTTEN;
        File::create(&path).unwrap().set_modified(old).unwrap();
        left_behind::<String>(Service::Redis, "redis://nowhere/").unwrap();
        assert!(path.exists(), "a reader's file was removed");
        fs::remove_file(&path).unwrap();
    }
}
