//! Do the files that no compiler reads agree with the code?

use std::{collections::HashSet, fs};

use anyhow::{Context, ensure};
use lab::{Service, stack::compose};
use serde_json::Value;

use crate::support::{Outcome, tests};

tests![
    the_compose_file_agrees_with_lab,
    the_readme_names_every_answer_and_every_experiment,
    every_answer_has_the_shape_of_an_answer,
];

async fn the_compose_file_agrees_with_lab() -> Outcome {
    let text = fs::read_to_string(lab::stack::workspace().join("docker-compose.yml"))?;
    let file: Value = serde_saphyr::from_str(&text)?;
    let services = file["services"].as_object().context("no services")?;
    // The answers have profiles.
    let servers = services.values().filter(|service| service["profiles"].is_null()).count();
    ensure!(servers == Service::STACK.len(), "one service for each server of the stack");
    for (lab, service, inside) in [
        (Service::Postgres, "postgres", 5432),
        (Service::Redis, "redis", 6379),
        (Service::RabbitMq, "rabbitmq", 5672),
    ] {
        let url = url::Url::parse(compose::url(lab).context("no address")?)?;
        let port = url.port().context("no port")?;
        let service = services.get(service).with_context(|| format!("{lab} is missing"))?;
        let image = service["image"].as_str().context("no image")?;
        ensure!(lab.image() == Some(image), "{lab}: {image} is not lab's image");
        let version = image.split_once(':').context("the image has no version")?.1;
        ensure!(version.starts_with(|c: char| c.is_ascii_digit()), "{image} is not pinned");
        let port = format!("127.0.0.1:{port}:{inside}");
        ensure!(url.host_str() == Some("127.0.0.1"));
        ensure!(service["ports"] == serde_json::json!([port]), "{lab}: ports are not [{port}]");
        ensure!(service["healthcheck"]["test"].is_array(), "{lab} has no health check");
        let volume = service["volumes"][0].as_str().context("no volume")?;
        let volume = volume.split(':').next().unwrap_or_default();
        ensure!(file["volumes"].get(volume).is_some(), "{lab}: {volume} is not a named volume");
        // Credentials: in the environment, or, for Redis, on the command line.
        let words = format!("{} {}", service["environment"], service["command"]);
        let has = |word| words.contains(&format!("\"{word}\""));
        ensure!(url.password().is_some_and(has), "{lab}: another password");
        ensure!(lab == Service::Redis || has(url.username()), "{lab}: another user");
    }
    Ok(())
}

async fn the_readme_names_every_answer_and_every_experiment() -> Outcome {
    let readme = fs::read_to_string(lab::stack::workspace().join("README.md"))?;
    for answer in guide::answers() {
        ensure!(readme.contains(&format!("`{}`", answer.name)), "{} is missing", answer.name);
        let own = fs::read_to_string(format!("{}/README.md", answer.folder))?;
        for experiment in &answer.experiments {
            let name = format!("`{}`", experiment.name);
            ensure!(readme.contains(&name), "the README lacks {name}");
            ensure!(own.contains(experiment.name), "{}'s README lacks {name}", answer.name);
        }
    }
    Ok(())
}

async fn every_answer_has_the_shape_of_an_answer() -> Outcome {
    let mut names = HashSet::new();
    for answer in guide::answers() {
        let folder = std::path::Path::new(answer.folder);
        for part in ["README.md", "chapter.md", "src/lib.rs", "src/main.rs"] {
            ensure!(folder.join(part).exists(), "{} lacks {part}", answer.name);
        }
        ensure!(folder.ends_with(answer.name), "{} lives in another folder", answer.name);
        ensure!(names.insert(answer.name), "two answers are called {}", answer.name);
        ensure!(!answer.experiments.is_empty(), "{} proves nothing", answer.name);
        let mut experiments = HashSet::new();
        for experiment in &answer.experiments {
            ensure!(experiments.insert(experiment.name), "two are called {}", experiment.name);
            ensure!(experiment.claim.len() > 20, "{}: that is no claim", experiment.name);
            for param in experiment.params() {
                ensure!(!param.help.is_empty(), "{} --{}: no help", experiment.name, param.name);
            }
        }
    }
    Ok(())
}
