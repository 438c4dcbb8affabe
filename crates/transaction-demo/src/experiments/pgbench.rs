//! How fast is PostgreSQL's own benchmark with our statements?

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, ensure};
use lab::database::Database;
use tokio::process::Command;

use super::random::Random;
use crate::{database::Isolation, store};

// ANCHOR: script
/// The service's own statements, in its order. pgbench has names where they have numbers.
pub fn script(accounts: u32) -> String {
    let mut script = format!(
        "\\set n :n + 1\n\
         \\set key :client_id * 1000000000 + :n\n\
         \\set from random(1, {accounts})\n\
         \\set to 1 + (:from - 1 + random(1, {accounts} - 1)) % {accounts}\n\
         \\set cents random(1, 100)\n\
         {};\n",
        Isolation::default().begin(),
    );
    let fingerprint = format!("'\\x{}'", "5a".repeat(32));
    for (sql, variables, then) in [
        (store::CLAIM_KEY, &["'POST /transfers'", ":key", fingerprint.as_str()][..], "\\gset"),
        (store::LOCK_ACCOUNTS, &[":from", ":to"], ";"),
        (store::MOVE_MONEY, &[":number", ":from", ":to", ":cents"], ";"),
    ] {
        let mut sql = sql.split_whitespace().collect::<Vec<_>>().join(" ");
        for (number, variable) in variables.iter().enumerate() {
            sql = sql.replace(&format!("${}", number + 1), variable);
        }
        script += &format!("{sql} {then}\n");
    }
    script + "commit;\n"
}
// ANCHOR_END: script

/// The program, on the `PATH` or where Debian keeps it.
pub fn find() -> Option<PathBuf> {
    let on_path = std::env::var_os("PATH")?;
    let on_path = std::env::split_paths(&on_path).map(|folder| folder.join("pgbench"));
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let versions = versions.map(|version| version.path().join("bin/pgbench"));
    on_path.chain(versions).find(|program| program.is_file())
}

/// Keys are numbers here, on both sides: client times 10⁹, and from this one on.
pub fn first_key(round: u32) -> u64 {
    (u64::from(round) + 1) * 100_000_000_000
}

/// A file that is gone when this is dropped.
pub struct Script(PathBuf);

impl Drop for Script {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Writes the script down.
pub fn write(text: &str) -> anyhow::Result<Script> {
    let name = format!("transfer-{:016x}.sql", Random::new().below(u64::MAX));
    let file = Script(std::env::temp_dir().join(name));
    std::fs::write(&file.0, text)?;
    Ok(file)
}

/// What it measured.
pub struct Bench {
    /// Transactions that it made.
    pub transactions: u64,
    /// Transactions a second.
    pub rate: f64,
}

/// Prepared statements, as ours are; a thread for each core, as ours has, so that it does not hold itself up.
pub async fn run(
    program: &Path,
    script: &Script,
    database: &Database,
    clients: u16,
    seconds: u32,
    round: u32,
) -> anyhow::Result<Bench> {
    let url = url::Url::parse(database.url())?;
    let mut address = url.clone();
    // The password in the environment: everybody can read a command line.
    let _ = address.set_password(None);
    let password = url.password().unwrap_or_default().to_owned();
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = threads.min(clients.into());
    let output = Command::new(program)
        .args(["--no-vacuum", "--protocol=prepared", "--define"])
        .arg(format!("n={}", first_key(round)))
        .arg(format!("--client={clients}"))
        .arg(format!("--jobs={threads}"))
        .arg(format!("--time={seconds}"))
        .arg(format!("--file={}", script.0.display()))
        .arg(address.as_str())
        .env("PGPASSWORD", password)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("pgbench cannot be run")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let failed = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "pgbench: {said}{failed}");
    let after = |words: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(words));
        let word = line.and_then(|line| line.split_whitespace().next());
        // `1234/1234`, where a number of transactions was asked for.
        let word = word.and_then(|word| word.split('/').next());
        word.with_context(|| format!("pgbench does not say {words}: {said}"))
    };
    Ok(Bench {
        transactions: after("number of transactions actually processed: ")?.parse()?,
        rate: after("tps = ")?.parse()?,
    })
}
