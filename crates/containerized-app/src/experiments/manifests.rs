//! Would the orchestrator take our manifests, and would we notice a mistake in them?

use std::{collections::BTreeMap, fs, io, path::Path};

use anyhow::{Context, bail};
use k8s_openapi::api::{
    apps::v1::Deployment,
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{ConfigMap, Service},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
};
use lab::{Experiment, Lab, Sabotage};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::process::Command;

use super::{
    fixture::FOLDER,
    python::{say, tool},
};
use crate::manifest::{Rights, check, containers, pod};

/// What can be chosen.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Params {
    /// Whether the schemas of Kubernetes are asked too, by a program of Python
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    pub schemas: bool,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "manifests",
        "Every manifest of ours is valid for the newest Kubernetes whose types we have, and our rules find nothing in it. Of \
         sixteen planted mistakes, each is found, and the types alone refuse two",
        &["--schemas", "false"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/manifest.rs",
        replace: r#"path("livenessProbe") != path("readinessProbe")"#,
        with: r#"path("livenessProbe") == path("livenessProbe")"#,
        check: "planted mistakes that are found",
    })
}

/// A mistake: what it is, what it replaces in our manifests, with what, and what has to be said of it.
const MISTAKES: [(&str, &str, &str, &str); 16] = [
    ("a misspelt probe", "livenessProbe:", "livenesProbe:", "no field"),
    (
        "a misspelt limit",
        "limits:\n              memory: 256Mi",
        "limit:\n              memory: 256Mi",
        "no field",
    ),
    (
        "no limit of memory",
        "            limits:\n              memory: 256Mi\n",
        "",
        "no limit of memory",
    ),
    ("no request of CPU", "              cpu: 100m\n", "", "no requests"),
    (
        "the tag `latest`",
        "registry.example/app:1.0.0",
        "registry.example/app:latest",
        "without a fixed tag",
    ),
    (
        "replicas beside an autoscaler",
        "  # No replicas: the autoscaler sets them.\n",
        "  replicas: 3\n",
        "undoes its work",
    ),
    ("root", "        runAsUser: 65532\n", "        runAsUser: 0\n", "may run as root"),
    (
        "a file system that can be written",
        "readOnlyRootFilesystem: true",
        "readOnlyRootFilesystem: false",
        "can be written",
    ),
    (
        "all capabilities",
        "            capabilities:\n              drop:\n                - ALL\n",
        "",
        "keeps rights of root",
    ),
    (
        "privileges can be gained",
        "allowPrivilegeEscalation: false",
        "allowPrivilegeEscalation: true",
        "may gain privileges",
    ),
    (
        "a selector that matches nothing",
        "    matchLabels:\n      app: app\n  strategy",
        "    matchLabels:\n      app: web\n  strategy",
        "does not choose its own pods",
    ),
    (
        "a service that matches nothing",
        "  selector:\n    app: app\n  ports",
        "  selector:\n    app: web\n  ports",
        "chooses no pod",
    ),
    (
        "liveness that asks the backend",
        "livenessProbe:\n            httpGet:\n              path: /healthz",
        "livenessProbe:\n            httpGet:\n              path: /readyz",
        "liveness asks what readiness asks",
    ),
    (
        "a grace period that is too short",
        "terminationGracePeriodSeconds: 30",
        "terminationGracePeriodSeconds: 10",
        "the grace period is not longer",
    ),
    (
        "a budget that blocks every drain",
        "minAvailable: 2",
        "minAvailable: 3",
        "never lets a node be drained",
    ),
    (
        "a secret in the manifest",
        "          envFrom:\n",
        "          env:\n            - name: API_TOKEN\n              value: hunter2\n          envFrom:\n",
        "a secret stands in the manifest",
    ),
];

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let mut invalid = 0;
    for (file, manifest) in ours()? {
        if let Err(error) = is_valid(&manifest) {
            invalid += 1;
            lab.text(format_args!("{file}: {error:#}"));
        }
    }
    lab.check_eq("manifests of ours that are not valid", 0, invalid);
    if params.schemas {
        match tool("kubernetes-validate").await {
            Ok(place) => schemas(&lab, &place).await?,
            Err(error) => lab.text(format_args!("The schemas are not asked: {error:#}")),
        }
    }
    let manifests: Vec<_> = ours()?.into_iter().map(|(_, manifest)| manifest).collect();
    let findings = check(&manifests);
    for it in &findings {
        lab.text(format_args!("{}: {}", it.about, it.says));
    }
    lab.check_eq("what our rules find in our manifests", 0, findings.len());
    for overlay in ["staging", "production"] {
        let Some(overlaid) = overlaid(overlay).await? else {
            lab.text(format_args!("kubectl is not installed, so {overlay} is not tried."));
            continue;
        };
        let invalid = overlaid.iter().filter(|it| is_valid(it).is_err()).count();
        let wrong = invalid + check(&overlaid).len();
        lab.check_eq(format!("what is wrong in {overlay}"), 0, wrong);
        lab.check_eq(format!("manifests of {overlay}"), manifests.len(), overlaid.len());
    }

    let texts = texts()?;
    let (mut rows, mut found, mut refused) = (Vec::new(), 0, 0);
    for (name, replace, with, says) in MISTAKES {
        let mut places = 0;
        let mut manifests = Vec::new();
        for text in texts.values() {
            places += text.matches(replace).count();
            manifests.extend(read(&text.replacen(replace, with, 1))?);
        }
        anyhow::ensure!(places >= 1, "{name}: nothing to replace");
        let schema = manifests.iter().find_map(|it| is_valid(it).err()).map(|it| it.to_string());
        refused += usize::from(schema.is_some());
        let rules = check(&manifests).into_iter().map(|it| it.says.to_owned());
        // Another finding does not count.
        let by = schema.into_iter().chain(rules).find(|it| it.contains(says));
        found += usize::from(by.is_some());
        rows.push(vec![name.to_owned(), by.unwrap_or_else(|| "not found".to_owned())]);
    }
    lab.check_eq("planted mistakes that are found", MISTAKES.len(), found);
    lab.check_eq("planted mistakes that the types alone refuse", 2, refused);
    lab.figure(
        "planted mistakes that fit the types of Kubernetes",
        (MISTAKES.len() - refused) as f64,
        "",
    );
    lab.table("Planted mistakes", &["mistake", "what is said"], rows);
    Ok(())
}

/// What the schemas of the newest Kubernetes that the validator knows say.
async fn schemas(lab: &Lab, place: &Path) -> anyhow::Result<()> {
    let valid = async |file: &Path| {
        let mut validate = Command::new("python3");
        validate.arg(place.join("bin/kubernetes-validate")).env("PYTHONPATH", place);
        say(validate.arg("--strict").arg(file)).await
    };
    let base = Path::new(FOLDER).join("deploy/base");
    let mut refused = Vec::new();
    for name in texts()?.keys() {
        if let Err(error) = valid(&base.join(name)).await {
            refused.push(format!("{name}: {error:#}"));
        }
    }
    let said = if refused.is_empty() { "none".to_owned() } else { refused.join("; ") };
    lab.check_eq("files of ours that the schemas refuse", "none", &*said);
    // The same program refuses what is wrong.
    let (_, probe, misspelt, _) = MISTAKES[0];
    let text = fs::read_to_string(base.join("deployment.yaml"))?.replace(probe, misspelt);
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("deployment.yaml");
    fs::write(&file, text)?;
    lab.check_eq("the schemas refuse a misspelt probe", true, valid(&file).await.is_err());
    Ok(())
}

/// What an overlay makes of our base, if `kubectl` is installed.
async fn overlaid(overlay: &str) -> anyhow::Result<Option<Vec<Value>>> {
    let folder = Path::new(FOLDER).join("deploy/overlays").join(overlay);
    match say(Command::new("kubectl").arg("kustomize").arg(folder)).await {
        Ok(text) => read(&text).map(Some),
        Err(error) => match error.downcast_ref::<io::Error>().map(io::Error::kind) {
            Some(io::ErrorKind::NotFound) => Ok(None),
            _ => Err(error),
        },
    }
}

/// The files of our base, by their names, but for kustomize's own.
fn texts() -> anyhow::Result<BTreeMap<String, String>> {
    let mut texts = BTreeMap::new();
    for entry in fs::read_dir(Path::new(FOLDER).join("deploy/base"))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != "kustomization.yaml" {
            texts.insert(name, fs::read_to_string(entry.path())?);
        }
    }
    Ok(texts)
}

/// Our manifests, with the names of their files.
pub fn ours() -> anyhow::Result<Vec<(String, Value)>> {
    let mut all = Vec::new();
    for (name, text) in texts()? {
        let manifests = read(&text).with_context(|| name.clone())?;
        all.extend(manifests.into_iter().map(|manifest| (name.clone(), manifest)));
    }
    Ok(all)
}

/// The rights that our manifest gives.
pub fn our_rights() -> anyhow::Result<Rights> {
    let manifests = ours()?;
    let pod = manifests.iter().find_map(|(_, it)| pod(it)).context("a pod")?;
    let container = containers(pod).next().context("a container")?;
    Ok(Rights::of(pod, container))
}

fn read(text: &str) -> anyhow::Result<Vec<Value>> {
    let parts = text.split("\n---\n").filter(|part| !part.trim().is_empty());
    parts.map(|part| Ok(serde_saphyr::from_str(part)?)).collect()
}

/// Whether Kubernetes has such a kind, and every field of it.
fn is_valid(manifest: &Value) -> anyhow::Result<()> {
    let kind = |field: &str| manifest[field].as_str().unwrap_or_default();
    match (kind("apiVersion"), kind("kind")) {
        ("apps/v1", "Deployment") => fits::<Deployment>(manifest),
        ("v1", "Service") => fits::<Service>(manifest),
        ("v1", "ConfigMap") => fits::<ConfigMap>(manifest),
        ("policy/v1", "PodDisruptionBudget") => fits::<PodDisruptionBudget>(manifest),
        ("autoscaling/v2", "HorizontalPodAutoscaler") => fits::<HorizontalPodAutoscaler>(manifest),
        ("networking.k8s.io/v1", "NetworkPolicy") => fits::<NetworkPolicy>(manifest),
        (version, kind) => bail!("no kind {kind} in {version}"),
    }
}

/// The types leave out what they do not know. So what does not come back is no field.
fn fits<T: DeserializeOwned + Serialize>(manifest: &Value) -> anyhow::Result<()> {
    let typed: T = serde_json::from_value(manifest.clone())?;
    match missing(manifest, &serde_json::to_value(typed)?) {
        Some(field) => bail!("there is no field {field}"),
        None => Ok(()),
    }
}

fn missing(given: &Value, known: &Value) -> Option<String> {
    match given {
        Value::Object(fields) => fields.iter().find_map(|(name, value)| match known.get(name) {
            None => Some(name.clone()),
            Some(known) => missing(value, known).map(|inside| format!("{name}.{inside}")),
        }),
        Value::Array(items) => {
            items.iter().enumerate().find_map(|(n, item)| missing(item, known.get(n)?))
        }
        _ => None,
    }
}
