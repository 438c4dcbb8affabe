//! RabbitMQ, 3.10 to 4.x.

use std::path::PathBuf;

use anyhow::Context;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{About, Container, Launch, Packages, text};
use crate::{
    port,
    stack::{
        home::Home,
        programs::{Programs, installed, on_path, programs, versions},
    },
};

pub(super) const ABOUT: About = About {
    name: "RabbitMQ",
    word: "rabbitmq",
    variable: "AMQP_URL",
    schemes: &["amqp", "amqps"],
    packages: Packages { debian: "rabbitmq-server", fedora: "rabbitmq-server", brew: "rabbitmq" },
    image: Some("rabbitmq:4.1.4"),
    container: Some(Container {
        port: 5672,
        data: "/var/lib/rabbitmq",
        environment: &[("RABBITMQ_DEFAULT_USER", "lab"), ("RABBITMQ_DEFAULT_PASS", "{password}")],
        config: None,
        // RabbitMQ names its data folder after the host.
        options: &["--hostname", "lab"],
        arguments: &[],
    }),
    compose_url: Some("amqp://answers:answers@127.0.0.1:56720/%2f"),
    refuses_root: false,
    find,
    launch: |home, programs, port| Box::pin(async move { launch(home, programs, port) }),
    url,
    greet: |url| Box::pin(greet(url)),
    version: |url| Box::pin(version(url)),
};

const SERVER: &str = "sbin/rabbitmq-server";

fn find() -> Option<Programs> {
    // The wrapper of Debian and Fedora on the `PATH` insists on the user `rabbitmq`; the program behind it does not.
    let wrapper = |path: &PathBuf| path.starts_with("/usr/sbin") || path.starts_with("/sbin");
    versions("/usr/lib/rabbitmq/lib", "rabbitmq_server-", SERVER)
        .into_iter()
        .chain(versions("/opt/local/lib/rabbitmq/lib", "rabbitmq_server-", SERVER)) // MacPorts
        .chain(["/opt/homebrew/opt/rabbitmq/sbin/rabbitmq-server".into()])
        .chain(["/usr/local/opt/rabbitmq/sbin/rabbitmq-server".into()]) // Homebrew on Intel
        .chain(on_path("rabbitmq-server").filter(|path| !wrapper(path)))
        .find_map(programs)
}

fn url(home: &Home) -> anyhow::Result<String> {
    let (port, password) = (home.read("port")?, home.read("password")?);
    Ok(format!("amqp://lab:{password}@127.0.0.1:{port}/%2f"))
}

/// With an `epmd` (Erlang's port mapper) of its own, which outlives the node and is ended after it.
fn launch(home: &Home, programs: &Programs, port: u16) -> anyhow::Result<Launch> {
    let password = home.password()?;
    let config = format!(
        "listeners.tcp.1 = 127.0.0.1:{port}\ndefault_user = lab\ndefault_pass = {password}\n\
         # Block publishers only when the disk is nearly full.\n\
         disk_free_limit.absolute = 50MB\n"
    );
    let config = home.write("rabbitmq.conf", &config)?;
    let plugins = home.write("enabled_plugins", "[rabbitmq_consistent_hash_exchange].\n")?;
    let (epmd_port, dist_port) = (port::free()?, port::free()?);
    let folder = text(&home.path)?;
    let mut launch = Launch::new(&programs.server, &[])?;
    launch.environment = [
        ("HOME", folder.clone()),
        ("RABBITMQ_NODENAME", "lab@localhost".to_owned()),
        ("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1".to_owned()),
        ("RABBITMQ_NODE_PORT", port.to_string()),
        ("RABBITMQ_DIST_PORT", dist_port.to_string()),
        ("RABBITMQ_MNESIA_BASE", format!("{folder}/mnesia")),
        ("RABBITMQ_LOG_BASE", folder.clone()),
        ("RABBITMQ_LOGS", "-".to_owned()),
        ("RABBITMQ_CONFIG_FILE", text(&config)?),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", text(&plugins)?),
        // Files that do not exist, instead of those that an administrator wrote for another broker.
        ("RABBITMQ_CONF_ENV_FILE", format!("{folder}/none")),
        ("RABBITMQ_CONFIG_FILES", format!("{folder}/none")),
        ("RABBITMQ_ADVANCED_CONFIG_FILE", format!("{folder}/none")),
        // With this the start script replaces itself with the Erlang VM, which then gets our signals. Otherwise the
        // script stays as its parent. Without `-noinput` the VM would read commands from standard input.
        ("RABBITMQ_ALLOW_INPUT", "1".to_owned()),
        ("RABBITMQ_SERVER_START_ARGS", "-noinput".to_owned()),
        ("ERL_EPMD_PORT", epmd_port.to_string()),
        ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let epmd =
        installed("epmd").next().map_or_else(|| Ok("epmd".to_owned()), |path| text(&path))?;
    launch.after = vec![epmd, "-port".to_owned(), epmd_port.to_string(), "-kill".to_owned()];
    Ok(launch)
}

async fn greet(url: &str) -> anyhow::Result<()> {
    let properties = lapin::ConnectionProperties::default();
    let connection = lapin::Connection::connect(url, properties).await?;
    Ok(connection.close(200, "goodbye".into()).await?)
}

/// RabbitMQ names its version in the first frame that it sends, before the login. `lapin` does not expose that frame,
/// so we read it here: the key, `S`, four bytes of length, the value.
async fn version(url: &str) -> anyhow::Result<String> {
    let url = url::Url::parse(url)?;
    let host = url.host_str().context("no host")?;
    let mut stream = TcpStream::connect((host, url.port().unwrap_or(5672))).await?;
    stream.write_all(b"AMQP\x00\x00\x09\x01").await?;
    let mut frame = Vec::new();
    let key = b"\x07versionS";
    loop {
        if let Some(at) = frame.windows(key.len()).position(|window| window == key)
            && let Some((length, value)) = frame[at + key.len()..].split_first_chunk::<4>()
            && let Some(version) = value.get(..u32::from_be_bytes(*length) as usize)
        {
            return Ok(String::from_utf8_lossy(version).into_owned());
        }
        let read = stream.read_buf(&mut frame).await?;
        anyhow::ensure!(read > 0 && frame.len() < 65_536, "no version in its first frame");
    }
}
