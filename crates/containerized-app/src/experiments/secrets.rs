//! Where does a secret stay that an image was built with?

use std::fs;

use lab::{Experiment, Lab, Need, Sabotage, Service};

use super::containers::{Containers, file};

/// What can be chosen.
#[derive(clap::Args, Clone, Debug)]
pub struct Params {
    /// The packages of the app, by commas; nothing: those of its requirements.txt
    #[arg(long, default_value = "")]
    pub packages: String,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "secrets",
        "A secret in ARG, in ENV, in a file that a later step deletes or in one that `COPY . .` takes along can be read from the \
         image by anybody who has it. One that is mounted when the container runs, or that .dockerignore names, cannot",
        &["--packages", "itsdangerous"],
        run,
    )
    .needs(&[Need::Tool(Service::ContainerEngine)])
    .sabotage(Sabotage {
        file: "Dockerfile",
        replace: "USER 65532:65532",
        with: "ARG TOKEN\nENV TOKEN=${TOKEN}\nUSER 65532:65532",
        check: "the secret is in our image",
    })
}

/// As the textbook copies the code.
const COPY_ALL: &str = "FROM program\nWORKDIR /app\nCOPY . .\n";

/// Four ways in which it is often done.
const WAYS: [(&str, &str); 4] = [
    ("ARG", "FROM program\nARG TOKEN\nRUN cat /dev/null\n"),
    ("ENV", "FROM program\nARG TOKEN\nENV TOKEN=${TOKEN}\n"),
    (
        "a deleted file",
        "FROM program\nCOPY token /token\nRUN cat /token > /dev/null && rm /token\n",
    ),
    ("`COPY . .`", COPY_ALL),
];

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let containers = Containers::start(&lab).await?;
    lab.progress(0, 6, "making a local python:3.11");
    containers.import_python().await?;
    containers.import_program().await?;
    let secret = secret();
    let context = containers.app("secrets", &params.packages)?;
    fs::write(context.join("token"), &secret)?;
    let argument = format!("TOKEN={secret}");
    let mut rows = Vec::new();
    for (n, (name, dockerfile)) in WAYS.into_iter().enumerate() {
        lab.progress(n as u64 + 1, 6, name);
        let image = format!("way-{n}");
        let more = ["--build-arg", &argument];
        let more = if n < 2 { more.as_slice() } else { &[] };
        containers.build(dockerfile, &context, &image, more).await?;
        let found = containers.holds(&image, &secret).await?;
        lab.check_eq(format!("the secret is in an image with {name}"), true, found);
        rows.push(vec![name.to_owned(), found.to_string()]);
    }
    // The same file once more, under a name that our .dockerignore has.
    fs::rename(context.join("token"), context.join(".env"))?;
    containers.build(COPY_ALL, &context, "ignored", &[]).await?;
    let found = containers.holds("ignored", &secret).await?;
    lab.check_eq("the secret is in an image with `COPY . .`, as .env", false, found);
    rows.push(vec!["`COPY . .`, and .dockerignore names it".to_owned(), found.to_string()]);
    fs::rename(context.join(".env"), context.join("token"))?;
    lab.progress(5, 6, "our Dockerfile");
    let more = ["--build-arg", &argument];
    containers.build(&file("Dockerfile")?, &context, "ours", &more).await?;
    let found = containers.holds("ours", &secret).await?;
    lab.check_eq("the secret is in our image", false, found);
    let mount = format!("{}:/run/secrets/token:ro", context.join("token").display());
    let read = "print(open('/run/secrets/token').read())";
    let name = ["run", "--rm", "--network", "none", "--volume", &mount, "ours"];
    let words = [name.as_slice(), &["python", "-c", read]].concat();
    let seen = containers.engine.docker(&words).await?;
    lab.check_eq("our container reads the secret that is mounted", true, seen == secret);
    rows.push(vec!["ours, mounted when it runs".to_owned(), found.to_string()]);
    lab.table(
        "Who has the image has the secret",
        &["the secret came by", "found in the image"],
        rows,
    );
    Ok(())
}

/// A new one for each run, so that no file of this machine has it.
fn secret() -> String {
    use std::hash::{BuildHasher, RandomState};
    let half = || RandomState::new().hash_one(std::process::id());
    format!("secret-{:016x}{:016x}", half(), half())
}
