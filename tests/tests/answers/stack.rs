//! Where do the servers come from, and when do they stop? The tests try every source and every error from outside: they
//! run this executable as `stack …` with an environment and a folder of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use lab::{Need, Service};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpListener,
    process::{Child, Command},
};

use crate::support::{Outcome, eventually, tests, within};

tests![
    a_url_that_is_set_and_does_not_answer_is_an_error,
    a_url_with_the_wrong_scheme_is_an_error,
    a_url_that_is_set_is_used,
    a_missing_server_is_an_error_that_says_what_to_type,
    a_container_engine_goes_before_installing_and_its_error_is_shown,
    what_apt_get_installs_is_used_and_its_error_is_shown,
    opening_the_guide_installs_nothing,
    the_compose_stack_is_brought_up_and_then_used,
    a_server_of_its_own_runs_in_a_container_where_it_is_not_installed,
    two_processes_that_start_at_the_same_moment_get_one_stack,
    servers_stop_when_their_last_user_was_killed,
    servers_stay_while_somebody_uses_them,
    a_process_that_is_given_the_private_servers_own_url_is_its_user,
    down_stops_them_at_once_although_somebody_uses_them,
    down_stops_a_server_that_is_just_starting,
    data_survives_a_stop,
    a_server_that_cannot_start_shows_the_end_of_its_log,
    an_ordinary_user_gets_a_stack_too,
    a_cold_stack_is_up_within_seconds_on_a_path_with_a_space,
    a_server_that_ends_at_once_leaves_no_process_behind,
    a_server_ends_with_its_keeper_and_is_started_again,
    a_stack_starts_under_any_umask,
    variables_for_other_servers_change_nothing,
    a_server_may_open_as_many_files_as_the_reader_lets_it,
    a_copy_that_belongs_to_somebody_else_is_refused,
    a_folder_that_a_reader_made_is_left_alone,
    a_folder_that_everybody_could_have_made_is_refused_if_it_is_not_ours,
    tools_open_what_an_answer_keeps,
    what_cannot_run_here_says_why_and_is_skipped,
];

/// A folder for a stack of the test's own, and the commands that act on it.
struct Stack {
    folder: PathBuf,
    idle: &'static str,
}

impl Stack {
    fn new(name: &str) -> anyhow::Result<Self> {
        Self::stopping_after("600", name)
    }

    /// A stack whose servers stop when they have been idle for this many seconds.
    fn stopping_after(idle: &'static str, name: &str) -> anyhow::Result<Self> {
        // If all servers are given, the programs may be missing.
        let needs = Service::STACK.map(Need::Own);
        if let Some(why) = needs.into_iter().find_map(Need::obstacle) {
            return Err(lab::skip(why));
        }
        // Under /var/tmp, because PostgreSQL's user has to be able to go there.
        let folder = PathBuf::from(format!("/var/tmp/{name}-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        Ok(Self { folder, idle })
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("/proc/self/exe");
        if !cfg!(target_os = "linux") {
            command = Command::new(std::env::current_exe().unwrap_or_default());
        }
        command
            .args(words)
            .env("LAB_CHILD", "1")
            .env("STACK_DIR", &self.folder)
            .env("STACK_IDLE_SECONDS", self.idle)
            .env_remove("DATABASE_URL")
            .env_remove("REDIS_URL")
            .env_remove("AMQP_URL")
            // A child of `lab` ends when this pipe closes.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// `stack up` with the RabbitMQ that all tests share: it takes seconds to start.
    async fn up(&self) -> anyhow::Result<Command> {
        let mut command = self.command(&["stack", "up"]);
        command.env("AMQP_URL", lab::stack::server(Service::RabbitMq).await?.url);
        Ok(command)
    }

    async fn run(&self, words: &[&str]) -> anyhow::Result<Output> {
        finish(self.command(words)).await
    }

    /// Starts PostgreSQL, and nothing else.
    async fn postgres(&self) -> anyhow::Result<Output> {
        self.run(&["stack", "psql", "url-shortener", "--", "-Atc", "select 1"]).await
    }

    async fn running(&self) -> anyhow::Result<usize> {
        let status = self.run(&["stack", "status"]).await?;
        Ok(String::from_utf8(status.stdout)?.matches(" running ").count())
    }

    /// A process that uses PostgreSQL of this stack and goes on doing so.
    async fn user(&self) -> anyhow::Result<(Child, String)> {
        listening(self.command(&["url-shortener", "serve", "--port", "0"])).await
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        let mut down = self.command(&["stack", "down"]).into_std();
        let down = || {
            let mut process = down.stdout(Stdio::null()).spawn()?;
            // The child ends when this pipe closes, and waiting for the child would close the pipe first.
            let _stdin = process.stdin.take();
            process.wait()
        };
        let down = std::thread::scope(|scope| scope.spawn(down).join());
        let gone = fs::remove_dir_all(&self.folder);
        if !std::thread::panicking() {
            assert!(matches!(down, Ok(Ok(status)) if status.success()), "servers were left behind");
            assert!(gone.is_ok(), "{} was left behind", self.folder.display());
        }
    }
}

/// Starts a process that serves, and waits until it says where.
async fn listening(mut command: Command) -> anyhow::Result<(Child, String)> {
    let mut process = command.spawn()?;
    let mut lines = BufReader::new(process.stdout.take().context("piped")?).lines();
    let line = lines.next_line().await?.context("it ended before it listened")?;
    let url = line.strip_prefix("listening on ").context("not that line")?.to_owned();
    Ok((process, url))
}

async fn finish(mut command: Command) -> anyhow::Result<Output> {
    let mut process = command.spawn()?;
    let stdin = process.stdin.take();
    let output = process.wait_with_output().await?;
    drop(stdin);
    Ok(output)
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Checks that it failed, and said all of this.
fn says(output: &Output, words: &[&str]) -> Outcome {
    let text = errors(output);
    ensure!(!output.status.success(), "it succeeded: {text}");
    for word in words {
        ensure!(text.contains(word), "no {word:?} in: {text}");
    }
    Ok(())
}

/// A user who owns nothing, on Linux.
const NOBODY: u32 = 65_534;

async fn a_url_that_is_set_and_does_not_answer_is_an_error() -> Outcome {
    let stack = Stack::new("stack-given-away")?;
    let mut command = stack.command(&["stack", "up"]);
    // Nothing listens on port 1.
    command.env("REDIS_URL", "redis://:secret@127.0.0.1:1/");
    let output = finish(command).await?;
    says(&output, &["REDIS_URL", "does not answer"])?;
    ensure!(!errors(&output).contains("secret"), "the password is in the error");
    ensure!(!stack.folder.join("redis").exists(), "it fell through to a private server");
    Ok(())
}

async fn a_url_with_the_wrong_scheme_is_an_error() -> Outcome {
    let stack = Stack::new("stack-scheme")?;
    let mut command = stack.command(&["stack", "up"]);
    command.env("DATABASE_URL", "mysql://root@127.0.0.1/test");
    says(&finish(command).await?, &["DATABASE_URL", "postgres://"])
}

async fn a_url_that_is_set_is_used() -> Outcome {
    let given = lab::stack::up(&Service::STACK).await?;
    let stack = Stack::new("stack-given")?;
    let mut command = stack.command(&["stack", "env"]);
    for server in &given {
        command.env(server.service.variable(), &server.url);
    }
    let output = finish(command).await?;
    let text = String::from_utf8(output.stdout)?;
    for server in &given {
        ensure!(text.contains(&server.url), "{} is not used: {text}", server.service);
    }
    ensure!(!stack.folder.join("postgres").exists(), "it started a server of its own");
    Ok(())
}

/// A `PATH` with everything that is on ours, except for these programs, and with scripts in their place.
fn path_with(stack: &Stack, scripts: &[(&str, &str)]) -> anyhow::Result<PathBuf> {
    let hidden = ["redis-server", "docker", "apt-get"];
    // `lab` looks there too, but first on the `PATH`.
    let elsewhere = |folder: &str| Path::new(folder).join("redis-server").exists();
    let is_replaced = scripts.iter().any(|(name, _)| *name == "redis-server");
    if !is_replaced && lab::stack::ELSEWHERE.into_iter().any(elsewhere) {
        return Err(lab::skip("Redis is where no PATH can hide it"));
    }
    let folder = stack.folder.join("programs");
    fs::create_dir_all(&folder)?;
    let path = std::env::var_os("PATH").context("no PATH")?;
    for program in
        std::env::split_paths(&path).filter_map(|folder| folder.read_dir().ok()).flatten()
    {
        let program = program?;
        if !hidden.iter().any(|name| program.file_name() == *name) {
            // The first program of a name counts, as on any PATH.
            let _ = symlink(program.path(), folder.join(program.file_name()));
        }
    }
    for (name, script) in scripts {
        let program = folder.join(name);
        fs::write(&program, format!("#!/bin/sh\n{script}\n"))?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    }
    Ok(folder)
}

/// The real Redis, which those scripts bring.
fn redis() -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").context("no PATH")?;
    let programs = std::env::split_paths(&path).map(|folder| folder.join("redis-server"));
    programs.into_iter().find(|program| program.exists()).context("Redis is not on the PATH")
}

/// Skips a test that only root can run.
fn only_root(stack: &Stack) -> Outcome {
    // The folder belongs to our own user, who has just made it.
    let root = fs::metadata(&stack.folder)?.uid() == 0;
    if root { Ok(()) } else { Err(lab::skip("only root can do this")) }
}

fn only_linux() -> Outcome {
    if cfg!(target_os = "linux") { Ok(()) } else { Err(lab::skip("it is about Linux")) }
}

/// The command lines of the processes that belong to this stack.
fn processes(stack: &Stack) -> anyhow::Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for process in fs::read_dir("/proc")?.flatten() {
        // The process may end meanwhile.
        let Ok(words) = fs::read(process.path().join("cmdline")) else { continue };
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        if words.contains(&*stack.folder.to_string_lossy()) {
            found.push((process.file_name().to_string_lossy().into_owned(), words));
        }
    }
    Ok(found)
}

async fn a_missing_server_is_an_error_that_says_what_to_type() -> Outcome {
    let stack = Stack::new("stack-missing")?;
    let mut command = stack.up().await?;
    command.env("PATH", path_with(&stack, &[])?).env("STACK_INSTALL", "never");
    let output = finish(command).await?;
    says(&output, &["Redis is missing", "docker compose up --wait", "REDIS_URL"])
}

async fn a_container_engine_goes_before_installing_and_its_error_is_shown() -> Outcome {
    let stack = Stack::new("stack-docker")?;
    let docker = "[ \"$1\" = info ] || { echo 'no space left on device' >&2; exit 1; }";
    let scripts = [("docker", docker), ("apt-get", "echo installed >&2; exit 1")];
    let mut command = stack.up().await?;
    command.env("PATH", path_with(&stack, &scripts)?);
    let output = finish(command).await?;
    says(&output, &["docker compose up failed", "no space left on device"])?;
    ensure!(!errors(&output).contains("apt-get"), "it tried to install: {}", errors(&output));
    Ok(())
}

async fn what_apt_get_installs_is_used_and_its_error_is_shown() -> Outcome {
    let stack = Stack::new("stack-apt")?;
    only_root(&stack)?;
    let broken = [("apt-get", "echo 'E: Unable to locate package redis-server'; exit 100")];
    let mut command = stack.up().await?;
    command.env("PATH", path_with(&stack, &broken)?);
    says(&finish(command).await?, &["apt-get update", "E: Unable to locate package"])?;

    // An `apt-get` that installs it, as the real one does.
    let bring = format!(
        "[ \"$1\" = install ] && ln -s '{}' '{}/programs/redis-server'; exit 0",
        redis()?.display(),
        stack.folder.display()
    );
    let mut command = stack.up().await?;
    command.env("PATH", path_with(&stack, &[("apt-get", &bring)])?);
    let output = finish(command).await?;
    ensure!(output.status.success(), "{}", errors(&output));
    let words = errors(&output);
    ensure!(words.contains("not found; apt-get install redis-server"), "not announced: {words}");
    ensure!(words.contains("Redis       ready after"), "not used: {words}");
    Ok(())
}

async fn opening_the_guide_installs_nothing() -> Outcome {
    let stack = Stack::new("stack-guide")?;
    only_root(&stack)?;
    let called = stack.folder.join("apt-get-was-called");
    let path = path_with(&stack, &[("apt-get", &format!("touch {}; exit 1", called.display()))])?;
    let mut guide = stack.up().await?;
    guide.env("PATH", path).env_remove("LAB_CHILD").env(crate::AS_GUIDE, "1");
    let _guide = guide.spawn()?;
    // It makes the book first. PostgreSQL is waited for: an `initdb` whose parent is killed goes on writing for a
    // moment.
    let postgres = stack.folder.join("postgres/data/postmaster.pid");
    within(Duration::from_mins(1), "what is installed runs", async || {
        Ok(postgres.exists().then_some(()))
    })
    .await?;
    ensure!(!called.exists(), "apt-get was called");
    Ok(())
}

/// In a network of its own, since the Compose stack's ports are the same for everybody.
async fn the_compose_stack_is_brought_up_and_then_used() -> Outcome {
    let stack = Stack::new("stack-compose")?;
    only_linux()?;
    only_root(&stack)?;
    let docker = format!(
        "[ \"$1\" = info ] && exit
         '{}' --daemonize yes --port 63790 --requirepass answers --save ''
         until redis-cli -p 63790 -a answers ping; do sleep 0.02; done",
        redis()?.display()
    );
    // SIOCSIFFLAGS with IFF_UP: a new network has its loopback down.
    let network = r#"
        use Socket;
        socket(my $any, AF_INET, SOCK_DGRAM, 0) or die;
        ioctl($any, 0x8914, my $up = pack("a16s", "lo", 1)) or die;
        exec @ARGV;
    "#;
    let script = r#"
        "$0" stack up && "$0" stack up && "$0" stack env && "$0" stack status
        result=$?
        redis-cli -p 63790 -a answers shutdown nosave
        exit $result
    "#;
    let ours = stack.command(&[]);
    let mut apart = Command::new("unshare");
    apart.args(["--net", "perl", "-e", network, "sh", "-c", script]).arg(std::env::current_exe()?);
    for (name, value) in ours.as_std().get_envs() {
        match value {
            Some(value) => apart.env(name, value),
            None => apart.env_remove(name),
        };
    }
    apart.env("PATH", path_with(&stack, &[("docker", &docker)])?);
    apart.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = finish(apart).await?;
    ensure!(output.status.success(), "{}", errors(&output));
    let (words, text) = (errors(&output), String::from_utf8(output.stdout)?);
    ensure!(words.matches("docker compose up").count() == 1, "not brought up once: {words}");
    ensure!(words.contains("Redis       using the Compose stack"), "not used: {words}");
    ensure!(text.contains("REDIS_URL='redis://default:answers@127.0.0.1:63790/'"), "{text}");
    ensure!(text.contains("Redis       running  compose"), "{text}");
    ensure!(text.contains("PostgreSQL  running  private"), "each on its own: {text}");
    Ok(())
}

/// Imitates `docker run` without a container: the server listens on the published port and keeps its data in the
/// volume. Every other command succeeds and does nothing.
fn docker_run() -> anyhow::Result<String> {
    let script = r#"
        [ "$1" = run ] || exit 0
        while [ $# -gt 0 ]; do
            case "$1 $2" in
                "--publish "*) port=${2#127.0.0.1:} port=${port%:*} ;;
                "--volume "*:/data) data=${2%:/data} ;;
                "--volume "*:/redis.conf:ro) config=${2%:/redis.conf:ro} ;;
            esac
            shift
        done
        sed "s|^dir .*|dir $data|; s|^port .*|port $port|" "$config" > "$data/container.conf"
        exec 'REDIS' "$data/container.conf" --bind 127.0.0.1
    "#;
    Ok(script.replace("REDIS", &redis()?.to_string_lossy()))
}

async fn a_server_of_its_own_runs_in_a_container_where_it_is_not_installed() -> Outcome {
    let stack = Stack::new("stack-container")?;
    only_linux()?;
    let path = path_with(&stack, &[("docker", &docker_run()?)])?;
    let answers = guide::answers();
    let answer = answers.iter().find(|it| it.name == "cache-aside").context("no answer")?;
    // The experiment kills its Redis and starts it again, with its data.
    let away = answer.experiment("redis-away").context("no experiment")?;
    let mut command = stack.command(&["cache-aside", "experiment", "redis-away", "--json"]);
    command.args(away.quick).env("PATH", path).env("DOCKER_HOST", "unix:///none");
    for service in [Service::Postgres, Service::Redis] {
        command.env(service.variable(), lab::stack::server(service).await?.url);
    }
    let output = finish(command).await?;
    let report: serde_json::Value =
        serde_json::from_slice(&output.stdout).with_context(|| errors(&output))?;
    ensure!(report["skipped"].is_null(), "{report}");
    ensure!(output.status.success(), "{report}");
    // Its keeper has to clean up the rest.
    eventually("it has ended, and its folder is gone", async || {
        let homes = fs::read_dir(stack.folder.join("own"))?.count();
        Ok((homes == 0 && processes(&stack)?.is_empty()).then_some(()))
    })
    .await
}

async fn two_processes_that_start_at_the_same_moment_get_one_stack() -> Outcome {
    let stack = Stack::new("stack-two")?;
    let (one, two) = tokio::try_join!(stack.run(&["stack", "env"]), stack.run(&["stack", "env"]))?;
    ensure!(one.status.success(), "{}", errors(&one));
    ensure!(two.status.success(), "{}", errors(&two));
    ensure!(one.stdout == two.stdout, "they got different servers");
    let starts = [one, two].map(|output| errors(&output).matches("starting").count());
    ensure!(starts[0] + starts[1] == 3, "started {starts:?} times");
    Ok(())
}

async fn servers_stop_when_their_last_user_was_killed() -> Outcome {
    let stack = Stack::stopping_after("1", "stack-killed")?;
    let (mut user, _) = stack.user().await?;
    ensure!(stack.running().await? == 1);
    user.kill().await?;
    eventually("PostgreSQL stops after its user was killed", async || {
        Ok((stack.running().await? == 0).then_some(()))
    })
    .await?;
    // The next process can start the server as usual.
    let (_user, url) = stack.user().await?;
    ensure!(reqwest::get(format!("{url}readyz")).await?.status() == 200);
    Ok(())
}

async fn servers_stay_while_somebody_uses_them() -> Outcome {
    let stack = Stack::stopping_after("1", "stack-stays")?;
    let (_user, url) = stack.user().await?;
    stays(&stack, &url).await
}

/// Checks whether PostgreSQL keeps running for an answer that is served with this URL.
async fn stays(stack: &Stack, url: &str) -> Outcome {
    let begun = Instant::now();
    // Three times the idle time, in which another user comes and goes.
    while begun.elapsed() < Duration::from_secs(4) {
        ensure!(stack.running().await? == 1, "it stopped under its user");
        ensure!(reqwest::get(format!("{url}readyz")).await?.status() == 200);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

async fn a_process_that_is_given_the_private_servers_own_url_is_its_user() -> Outcome {
    let stack = Stack::stopping_after("1", "stack-given-back")?;
    ensure!(stack.postgres().await?.status.success());
    let mut env = stack.command(&["stack", "env"]);
    for service in [Service::Redis, Service::RabbitMq] {
        env.env(service.variable(), lab::stack::server(service).await?.url);
    }
    let env = String::from_utf8(finish(env).await?.stdout)?;
    let url = env.lines().find_map(|line| line.strip_prefix("export DATABASE_URL='"));
    let url = url.and_then(|url| url.strip_suffix('\'')).context("no URL")?;
    eventually("it stops", async || Ok((stack.running().await? == 0).then_some(()))).await?;
    let mut user = stack.command(&["url-shortener", "serve", "--port", "0"]);
    user.env("DATABASE_URL", url);
    let (_user, served) = listening(user).await?;
    stays(&stack, &served).await
}

async fn down_stops_them_at_once_although_somebody_uses_them() -> Outcome {
    let stack = Stack::new("stack-down")?;
    let (_user, _) = stack.user().await?;
    ensure!(stack.running().await? == 1);
    let begun = Instant::now();
    let output = stack.run(&["stack", "down"]).await?;
    ensure!(String::from_utf8(output.stdout)?.contains("stopped PostgreSQL"));
    ensure!(begun.elapsed() < Duration::from_secs(10), "took {:?}", begun.elapsed());
    ensure!(stack.running().await? == 0);
    Ok(())
}

async fn down_stops_a_server_that_is_just_starting() -> Outcome {
    let stack = Stack::new("stack-hasty")?;
    let mut up = stack.command(&["stack", "up"]).spawn()?;
    // PostgreSQL runs by then: an `initdb` whose parent is killed goes on writing for a moment, and nobody could stop
    // it.
    let begun = ["rabbitmq/mnesia", "postgres/data/postmaster.pid"].map(|it| stack.folder.join(it));
    let begun = async || Ok(begun.iter().all(|it| it.exists()).then_some(()));
    eventually("RabbitMQ begins to start", begun).await?;
    up.kill().await?;
    let down = stack.run(&["stack", "down"]).await?;
    ensure!(down.status.success(), "{}", errors(&down));
    ensure!(stack.running().await? == 0, "something still runs");
    Ok(())
}

async fn data_survives_a_stop() -> Outcome {
    let stack = Stack::new("stack-data")?;
    let (mut user, url) = stack.user().await?;
    let link = serde_json::json!({ "url": "https://example.com/kept", "alias": "kept" });
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
    ensure!(client.post(format!("{url}links")).json(&link).send().await?.status() == 201);
    user.kill().await?;
    stack.run(&["stack", "down"]).await?;
    let (_user, url) = stack.user().await?;
    ensure!(client.get(format!("{url}kept")).send().await?.status() == 302);
    Ok(())
}

async fn a_server_that_cannot_start_shows_the_end_of_its_log() -> Outcome {
    let stack = Stack::new("stack-broken")?;
    let (mut user, _) = stack.user().await?;
    user.kill().await?;
    stack.run(&["stack", "down"]).await?;
    // A damaged control file: PostgreSQL refuses to start.
    fs::write(stack.folder.join("postgres/data/global/pg_control"), "not a control file")?;
    let output = finish(stack.up().await?).await?;
    says(&output, &["PostgreSQL did not start", "pg_control", "rm -rf"])
}

async fn an_ordinary_user_gets_a_stack_too() -> Outcome {
    let stack = Stack::new("stack-ordinary")?;
    // Only root can change the user. For an ordinary user, all tests show it.
    only_root(&stack)?;
    chown(&stack.folder, Some(NOBODY), Some(NOBODY))?;
    // The executable itself may be in a folder that only root can enter.
    let program = stack.folder.join("program");
    fs::copy(std::env::current_exe()?, &program)?;
    let mut command = Command::new(&program);
    command
        .args(["stack", "up"])
        .env("LAB_CHILD", "1")
        .env("STACK_DIR", &stack.folder)
        .env("STACK_IDLE_SECONDS", "1")
        .env("HOME", &stack.folder)
        .env_remove("DATABASE_URL")
        .env_remove("REDIS_URL")
        .env_remove("AMQP_URL")
        .current_dir(&stack.folder)
        .uid(NOBODY)
        .gid(NOBODY)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let output = finish(command).await?;
    ensure!(output.status.success(), "{}", errors(&output));
    ensure!(errors(&output).matches("ready after").count() == 3, "{}", errors(&output));
    Ok(())
}

async fn a_cold_stack_is_up_within_seconds_on_a_path_with_a_space() -> Outcome {
    // Something else on the usual ports changes nothing.
    let _taken = [5432, 6379, 5672].map(|port| TcpListener::bind(("127.0.0.1", port)));
    let stack = Stack::new("stack with a space, and 'quotes'")?;
    let begun = Instant::now();
    let output = stack.run(&["stack", "up"]).await?;
    ensure!(output.status.success(), "{}", errors(&output));
    // A figure, not a check: other tests load the machine. On an idle one it should be under 6 s.
    eprintln!("cold stack: {:.1} s", begun.elapsed().as_secs_f64());
    ensure!(stack.running().await? == 3);
    Ok(())
}

/// About one in fifty signals is lost if it comes while a process is just starting.
async fn a_server_that_ends_at_once_leaves_no_process_behind() -> Outcome {
    only_linux()?;
    let stack = Stack::new("stack-ends-at-once")?;
    for n in 0..50 {
        let ends = format!("sleep 0.0{:02}; exit 7", n % 25);
        let path = path_with(&stack, &[("redis-server", &ends)])?;
        let mut command = stack.command(&["stack", "redis-cli"]);
        command.env("PATH", path);
        says(&finish(command).await?, &["Redis did not start"])?;
    }
    let left = processes(&stack)?;
    ensure!(left.is_empty(), "still there: {left:?}");
    Ok(())
}

async fn a_server_ends_with_its_keeper_and_is_started_again() -> Outcome {
    only_linux()?;
    let stack = Stack::new("stack-keeper")?;
    let (_user, url) = stack.user().await?;
    let processes = processes(&stack)?;
    let keeper = processes.iter().find(|(_, words)| words.contains(" keeper "));
    let (pid, _) = keeper.context("no keeper")?;
    ensure!(Command::new("sh").args(["-c", "kill -9 $0", pid]).status().await?.success());
    eventually("PostgreSQL stops with its keeper", async || {
        Ok((stack.running().await? == 0).then_some(()))
    })
    .await?;
    let again = stack.postgres().await?;
    ensure!(again.status.success(), "{}", errors(&again));
    eventually("its user finds it at the same address", async || {
        let ready = reqwest::get(format!("{url}readyz")).await?.status() == 200;
        Ok(ready.then_some(()))
    })
    .await
}

async fn a_stack_starts_under_any_umask() -> Outcome {
    let stack = Stack::new("stack-umask")?;
    let ours = stack.command(&[]);
    let mut strict = Command::new("sh");
    strict.args(["-c", "umask 077; exec \"$0\" stack psql url-shortener -- -Atc 'select 1'"]);
    strict.arg(std::env::current_exe()?);
    let variables = ours.as_std().get_envs().filter_map(|(name, value)| Some((name, value?)));
    strict.envs(variables).env("STACK_DIR", stack.folder.join("not/yet"));
    for variable in ["DATABASE_URL", "REDIS_URL", "AMQP_URL"] {
        strict.env_remove(variable);
    }
    strict.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = finish(strict).await?;
    let mut down = stack.command(&["stack", "down"]);
    down.env("STACK_DIR", stack.folder.join("not/yet"));
    let down = finish(down).await?;
    ensure!(output.status.success(), "{}", errors(&output));
    ensure!(down.status.success(), "{}", errors(&down));
    ensure!(output.stdout == b"1\n");
    Ok(())
}

async fn variables_for_other_servers_change_nothing() -> Outcome {
    let stack = Stack::new("stack-variables")?;
    let answers = guide::answers();
    let answer = answers.iter().find(|it| it.name == "url-shortener").context("no answer")?;
    let race = answer.experiment("race").context("no experiment")?;
    let mut command = stack.command(&["url-shortener", "experiment", "race", "--json"]);
    command.args(race.quick);
    for (name, value) in [
        ("PGHOST", "192.0.2.1"),
        ("PGSSLMODE", "require"),
        ("PGOPTIONS", "-c default_transaction_read_only=on"),
        ("HTTP_PROXY", "http://127.0.0.1:1"),
        ("http_proxy", "http://127.0.0.1:1"),
        ("ALL_PROXY", "http://127.0.0.1:1"),
        // A reader who runs these servers as services may have set these.
        ("PGPORT", "1"),
        ("RABBITMQ_NODENAME", "another"),
    ] {
        command.env(name, value);
    }
    let output = finish(command).await?;
    ensure!(output.status.success(), "{}", errors(&output));
    Ok(())
}

/// Even if the experiment raises its own limit: some servers loop over every number up to the limit.
async fn a_server_may_open_as_many_files_as_the_reader_lets_it() -> Outcome {
    only_linux()?;
    let stack = Stack::new("stack-files")?;
    let answers = guide::answers();
    let answer = answers.iter().find(|it| it.name == "cache-aside").context("no answer")?;
    // The process raises its own limit first, and then starts the servers.
    let stampede = answer.experiment("stampede").context("no experiment")?;
    let ours = stack.command(&[]);
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -S -n 512; exec \"$0\" cache-aside experiment stampede \"$@\""]);
    limited.arg(std::env::current_exe()?).args(stampede.quick);
    for (name, value) in ours.as_std().get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    limited.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = finish(limited).await?;
    let pid = fs::read_to_string(stack.folder.join("postgres/data/postmaster.pid"));
    let pid = pid.with_context(|| errors(&output))?;
    let pid = pid.lines().next().context("no pid")?;
    let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = files.and_then(|limits| limits.split_whitespace().next());
    ensure!(soft == Some("512"), "{limits}");
    Ok(())
}

async fn a_copy_that_belongs_to_somebody_else_is_refused() -> Outcome {
    let stack = Stack::new("stack-original")?;
    only_root(&stack)?;
    ensure!(stack.postgres().await?.status.success());
    ensure!(stack.run(&["stack", "down"]).await?.status.success());
    let copy = Stack::new("stack-copy")?;
    let from = stack.folder.join("postgres");
    // Without the owners.
    let copied = Command::new("cp").arg("-r").args([&from, &copy.folder]).status().await?;
    ensure!(copied.success());
    let output = finish(copy.up().await?).await?;
    says(&output, &["postgres/data belongs to the user 0", "or is a copy", "rm -rf"])
}

async fn a_folder_that_a_reader_made_is_left_alone() -> Outcome {
    let stack = Stack::new("stack-readers")?;
    // As if `STACK_DIR` named a home directory with a clone of Redis in it.
    let redis = stack.folder.join("redis");
    let config = redis.join("redis.conf");
    fs::create_dir(&redis)?;
    fs::set_permissions(&redis, fs::Permissions::from_mode(0o755))?;
    fs::write(&config, "mine")?;
    let refused = async || {
        let output = stack.run(&["stack", "redis-cli", "--", "ping"]).await?;
        says(&output, &["was not made here", "left alone", "STACK_DIR"])
    };
    refused().await?;
    ensure!(fs::read_to_string(&config)? == "mine", "it was overwritten");
    ensure!(fs::metadata(&redis)?.mode() & 0o777 == 0o755, "its permissions were changed");
    ensure!(fs::read_dir(&redis)?.count() == 1, "something was made in it");
    // A file of this name is refused too.
    fs::remove_dir_all(&redis)?;
    fs::write(&redis, "mine")?;
    fs::set_permissions(&redis, fs::Permissions::from_mode(0o644))?;
    refused().await?;
    ensure!(fs::metadata(&redis)?.mode() & 0o777 == 0o644, "its permissions were changed");
    Ok(())
}

async fn a_folder_that_everybody_could_have_made_is_refused_if_it_is_not_ours() -> Outcome {
    let stack = Stack::new("stack-closed")?;
    only_root(&stack)?;
    // PostgreSQL's user cannot enter this folder, so its data is put somewhere else.
    let closed = stack.folder.join("closed");
    fs::create_dir(&closed)?;
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700))?;
    let words = closed.to_string_lossy().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    let elsewhere = PathBuf::from(format!("/var/tmp/worked-answers{words}"));
    let refused = async || {
        let mut command = stack.command(&["stack", "psql", "url-shortener"]);
        command.env("STACK_DIR", &closed);
        says(&finish(command).await?, &["is a link or belongs to another user", "STACK_DIR"])
    };
    symlink(&stack.folder, &elsewhere)?;
    let of_a_link = refused().await;
    fs::remove_file(&elsewhere)?;
    fs::create_dir(&elsewhere)?;
    chown(&elsewhere, Some(NOBODY), Some(NOBODY))?;
    let of_somebody_else = refused().await;
    fs::remove_dir(&elsewhere)?;
    of_a_link.and(of_somebody_else)
}

async fn tools_open_what_an_answer_keeps() -> Outcome {
    let stack = Stack::new("stack-tools")?;
    let query = "select count(*) from links";
    let psql = stack.run(&["stack", "psql", "url-shortener", "--", "-Atc", query]).await?;
    ensure!(psql.status.success(), "{}", errors(&psql));
    ensure!(psql.stdout == b"0\n", "{:?}", String::from_utf8(psql.stdout));
    let redis = stack.run(&["stack", "redis-cli", "--", "ping"]).await?;
    ensure!(redis.stdout == b"PONG\n", "{}", errors(&redis));
    // The same with the URLs alone.
    let mut env = stack.command(&["stack", "env", "url-shortener"]);
    env.env("AMQP_URL", lab::stack::server(Service::RabbitMq).await?.url);
    let env = finish(env).await?;
    let script = format!(
        "{}\npsql \"$DATABASE_URL\" -Atc '{query}' && redis-cli -u \"$REDIS_URL\" ping",
        String::from_utf8(env.stdout)?
    );
    let output = Command::new("sh").args(["-c", &script]).output().await?;
    ensure!(output.stdout == b"0\nPONG\n", "{}", errors(&output));
    Ok(())
}

async fn what_cannot_run_here_says_why_and_is_skipped() -> Outcome {
    let stack = Stack::new("stack-needs")?;
    let path = path_with(&stack, &[])?;
    let without_redis = |words: &[&str]| {
        let mut command = stack.command(words);
        // The experiment kills this server, so a given one is of no use.
        command.env("REDIS_URL", "redis://127.0.0.1:1/");
        command.env("STACK_INSTALL", "never").env("PATH", &path);
        command
    };
    let list = finish(without_redis(&["list", "--json"])).await?;
    let list: serde_json::Value = serde_json::from_slice(&list.stdout)?;
    let experiments = list.as_array().context("an array")?.iter();
    let experiments = experiments.flat_map(|it| it["experiments"].as_array().into_iter().flatten());
    let obstacles: BTreeMap<_, _> = experiments
        .filter_map(|it| Some((it["name"].as_str()?, it["obstacle"].as_str()?)))
        .collect();
    let answers = guide::answers();
    let experiments = answers.iter().flat_map(|answer| &answer.experiments);
    let of_its_own = |need: &Need| match need {
        Need::Own(service) => *service == Service::Redis,
        Need::Group(group) => group.service() == Service::Redis,
        _ => false,
    };
    let of_its_own = experiments.filter(|it| it.needs.iter().any(of_its_own));
    let of_its_own: BTreeSet<_> = of_its_own.map(|it| it.name).collect();
    ensure!(
        of_its_own.contains("eviction") && obstacles.keys().copied().eq(of_its_own),
        "{obstacles:?}"
    );
    let why = obstacles["eviction"];
    ensure!(why.contains("it needs Redis of its own, and Redis is not installed here"), "{why}");

    let run = without_redis(&["cache-aside", "experiment", "eviction", "--json"]);
    let run = finish(run).await?;
    ensure!(run.status.success(), "{}", errors(&run));
    let report: serde_json::Value = serde_json::from_slice(&run.stdout)?;
    ensure!(report["skipped"] == why, "{report}");
    ensure!(!errors(&run).contains("starting"), "it started something: {}", errors(&run));

    let mut guide = without_redis(&[]);
    guide.env_remove("LAB_CHILD").env(crate::AS_GUIDE, "1");
    // So that the guide starts no server.
    for service in [Service::Postgres, Service::RabbitMq] {
        guide.env(service.variable(), lab::stack::server(service).await?.url);
    }
    let (_guide, url) = listening(guide).await?;
    let page = reqwest::get(format!("{url}cache-aside.html")).await?.text().await?;
    ensure!(page.contains("It cannot run here: it needs Redis of its own"), "{page}");
    Ok(())
}
