//! What can somebody do who has broken into the container?

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
};

use anyhow::ensure;
use lab::{Experiment, Lab, Need, Sabotage, Service};

use super::{containers::Containers, manifests};
use crate::manifest::Rights;

/// What can be chosen.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Params {
    /// Whether each setting is tried alone too
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    pub alone: bool,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "root",
        "In the textbook's container the program is root: at least eight of ten attempts succeed, and what it writes onto a mount \
         belongs to root outside. With the settings of our manifest none succeeds, and each setting stops some by itself",
        &["--alone", "false"],
        run,
    )
    .needs(&[Need::Tool(Service::ContainerEngine)])
    .sabotage(Sabotage {
        file: "src/manifest.rs",
        replace: r#"own["allowPrivilegeEscalation"] == false"#,
        with: r#"own["allowPrivilegeEscalation"] == true"#,
        check: "attempts that succeed with the settings of our manifest",
    })
}

/// What is tried, with a shell. Each is true if it succeeds.
const ATTEMPTS: [(&str, &str); 10] = [
    (
        "write a file that is root's onto a mount",
        "touch /mnt/new && [ $(stat -c %u /mnt/new) = 0 ]",
    ),
    ("read another user's file on the mount", "cat /mnt/private"),
    (
        "leave a set-user-ID program on the mount",
        "cp /bin/id /mnt/id && chmod 4755 /mnt/id && [ $(stat -c %u /mnt/id) = 0 ]",
    ),
    ("change the app", "echo x >> /app/app.py"),
    ("leave a program in a system folder", "cp /bin/id /usr/bin/sh"),
    ("give a file to another user", "touch /tmp/given && chown 1234 /tmp/given"),
    ("make a device", "mknod /tmp/device c 1 3"),
    ("change the root folder", "chroot / true"),
    ("become root by a set-user-ID program", "[ $(id-as-root -u) = 0 ]"),
    ("mount a file system", "mount -t tmpfs none /mnt"),
];

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let containers = Containers::start(&lab).await?;
    containers.import_program().await?;
    let ours = manifests::our_rights()?;
    let none = Rights::default();
    let mut settings = vec![("textbook", none)];
    if params.alone {
        settings.extend([
            ("not root", Rights { user: ours.user, ..none }),
            ("no capabilities", Rights { no_capabilities: true, ..none }),
            ("read-only", Rights { read_only: true, ..none }),
            // Root has nothing to gain, so this one is tried for a user.
            (
                "not root, no new privileges",
                Rights { user: ours.user, no_new_privileges: true, ..none },
            ),
        ]);
    }
    settings.push(("our manifest", ours));
    let mut columns = vec!["attempt"];
    let mut rows: Vec<_> = ATTEMPTS.iter().map(|(name, _)| vec![(*name).to_owned()]).collect();
    let mut counts = Vec::new();
    for (n, (name, rights)) in settings.iter().enumerate() {
        lab.progress(n as u64, settings.len() as u64, name);
        let (succeeded, owner) = attempt(&containers, *rights).await?;
        if n == 0 {
            let owner = owner.map_or("nobody".to_owned(), |user| user.to_string());
            lab.check_eq("owner of a file that the textbook's wrote onto a mount", "0", &*owner);
        }
        columns.push(name);
        for (row, succeeded) in rows.iter_mut().zip(&succeeded) {
            row.push(if *succeeded { "succeeds" } else { "—" }.to_owned());
        }
        counts.push(succeeded.iter().filter(|succeeded| **succeeded).count());
    }
    lab.table("Attempts in a container", &columns, rows);
    let (textbook, ours) = (counts[0], counts[counts.len() - 1]);
    if params.alone {
        // Each is compared with the same without it.
        for (n, without) in [(1, 0), (2, 0), (3, 0), (4, 1)] {
            lab.check(
                format!("attempts that still succeed with: {}", settings[n].0),
                format!("fewer than {}", counts[without]),
                counts[n],
                counts[n] < counts[without],
            );
        }
    }
    lab.check(
        "attempts that succeed in the textbook's",
        "at least 8 of 10",
        textbook,
        textbook >= 8,
    );
    lab.check_eq("attempts that succeed with the settings of our manifest", 0, ours);
    lab.figure("attempts that succeed in the textbook's container", textbook as f64, "of 10");
    lab.figure("attempts that succeed with our manifest", ours as f64, "of 10");
    Ok(())
}

/// Which attempts succeed, and who owns the file that the first has written, as this system sees it.
async fn attempt(
    containers: &Containers,
    rights: Rights,
) -> anyhow::Result<(Vec<bool>, Option<u32>)> {
    let mount = tempfile::tempdir()?;
    fs::set_permissions(mount.path(), fs::Permissions::from_mode(0o777))?;
    let private = mount.path().join("private");
    fs::write(&private, "another user's")?;
    fs::set_permissions(&private, fs::Permissions::from_mode(0o600))?;
    std::os::unix::fs::chown(&private, Some(1_234), Some(1_234))?;
    let script: Vec<_> = ATTEMPTS
        .iter()
        .map(|(_, attempt)| {
            format!("if ({attempt}) >/dev/null 2>&1; then echo yes; else echo no; fi")
        })
        .collect();
    let (script, flags) = (script.join("\n"), rights.flags());
    let volume = format!("{}:/mnt", mount.path().display());
    let mut words =
        vec!["run", "--rm", "--network", "none", "--tmpfs", "/tmp", "--volume", &volume];
    words.extend(flags.iter().map(String::as_str));
    words.extend(["--env", "PATH=/bin", "program", "sh", "-c", &script]);
    let said = containers.engine.docker(&words).await?;
    let succeeded: Vec<_> = said.lines().map(|line| line == "yes").collect();
    ensure!(succeeded.len() == ATTEMPTS.len(), "the attempts said: {said}");
    let owner = fs::metadata(mount.path().join("new")).ok().map(|file| file.uid());
    Ok((succeeded, owner))
}
