//! Is a program installed? These functions look where systems put programs. Each service's file says which ones it
//! uses.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// The program to run, and the folder with the programs that belong to it.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The server.
    pub server: PathBuf,
    /// The folder of its helper programs, such as `initdb`.
    pub folder: PathBuf,
}

/// Folders that are not on every user's `PATH`: for administrators, Homebrew, MacPorts.
pub const ELSEWHERE: [&str; 7] = [
    "/usr/sbin",
    "/opt/homebrew/bin",
    "/opt/homebrew/sbin",
    "/usr/local/bin",
    "/usr/local/sbin",
    "/opt/local/bin",
    "/opt/local/sbin",
];

/// The folder is that of the real program, behind links, because the helpers are there. The program is run by its own
/// name: by its name Redis decides whether to be a server or one of its tools.
pub fn programs(server: PathBuf) -> Option<Programs> {
    let folder = server.canonicalize().ok()?.parent()?.to_owned();
    Some(Programs { server, folder })
}

/// A program on the `PATH`.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// Every program of this name, on the `PATH` and in [`ELSEWHERE`].
pub fn installed(name: &str) -> impl Iterator<Item = PathBuf> + use<> {
    let elsewhere = ELSEWHERE.map(|folder| Path::new(folder).join(name));
    on_path(name).into_iter().chain(elsewhere).filter(|program| program.is_file())
}

/// The variables of the reader's environment that a server gets. Others (`PGOPTIONS`, `RABBITMQ_…`, `ETCD_…`) would
/// change its behaviour.
const ENVIRONMENT: [&str; 9] = [
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "LOCALE_ARCHIVE",
];

/// Removes all other variables of the reader's environment from this command.
pub fn undisturbed(command: &mut Command) -> &mut Command {
    let kept = ENVIRONMENT.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
    command.env_clear().envs(kept)
}

/// `parent/<prefix><version>/<program>` for every version, the newest first.
pub fn versions(parent: impl AsRef<Path>, prefix: &str, program: &str) -> Vec<PathBuf> {
    let Ok(folders) = parent.as_ref().read_dir() else { return Vec::new() };
    let mut found: Vec<(Vec<u32>, PathBuf)> = folders
        .flatten()
        .filter_map(|folder| {
            let name = folder.file_name();
            let version = name.to_str()?.strip_prefix(prefix)?;
            let numbers = version.split('.').map_while(|number| number.parse().ok()).collect();
            Some((numbers, folder.path().join(program)))
        })
        .filter(|(version, path): &(Vec<u32>, _)| !version.is_empty() && path.is_file())
        .collect();
    found.sort();
    found.into_iter().rev().map(|(_, path)| path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_comes_first_by_number_not_by_letter() {
        let parent = std::env::temp_dir().join(format!("versions-{}", std::process::id()));
        for version in ["9.6", "15", "17.2"] {
            let folder = parent.join(format!("pg-{version}/bin"));
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("postgres"), "").unwrap();
        }
        let found = versions(&parent, "pg-", "bin/postgres");
        std::fs::remove_dir_all(&parent).unwrap();
        let expected = ["pg-17.2", "pg-15", "pg-9.6"].map(|v| parent.join(v).join("bin/postgres"));
        assert_eq!(found, expected);
    }
}
