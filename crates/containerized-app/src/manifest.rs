//! What must an orchestrator be told, and what does it do with what it is not told? Kubernetes accepts nearly all of the
//! mistakes that are found here: they are valid, and show themselves at night.

use serde_json::Value;

/// What a rule has found in a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The manifest: `Deployment/app`.
    pub about: String,
    /// What is wrong.
    pub says: &'static str,
}

/// How a container may run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// Its user, if it is not root.
    pub user: Option<u64>,
    /// All rights of root are taken away, also from root.
    pub no_capabilities: bool,
    /// Its root file system cannot be written.
    pub read_only: bool,
    /// A set-user-ID program gives it no more rights.
    pub no_new_privileges: bool,
}

impl Rights {
    // ANCHOR: rights
    /// As the manifest of a pod says it. What is missing is the default, and the default is everything.
    pub fn of(pod: &Value, container: &Value) -> Self {
        let pod = &pod["securityContext"];
        let own = &container["securityContext"];
        let either = |field: &str| if own[field].is_null() { &pod[field] } else { &own[field] };
        Self {
            user: either("runAsUser").as_u64().filter(|user| *user > 0),
            no_capabilities: list(&own["capabilities"]["drop"]).any(|name| name == "ALL"),
            read_only: own["readOnlyRootFilesystem"] == true,
            no_new_privileges: own["allowPrivilegeEscalation"] == false,
        }
    }
    // ANCHOR_END: rights

    /// The same for `docker run`.
    pub fn flags(self) -> Vec<String> {
        let mut flags = Vec::new();
        if let Some(user) = self.user {
            flags.push(format!("--user={user}:{user}"));
        }
        for (set, flag) in [
            (self.no_capabilities, "--cap-drop=ALL"),
            (self.read_only, "--read-only"),
            (self.no_new_privileges, "--security-opt=no-new-privileges"),
        ] {
            flags.extend(set.then(|| flag.to_owned()));
        }
        flags
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The pod that a manifest makes, if it makes one.
pub fn pod(manifest: &Value) -> Option<&Value> {
    Some(&manifest["spec"]["template"]["spec"]).filter(|pod| pod.is_object())
}

/// The containers of a pod.
pub fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    list(&pod["containers"])
}

fn labels(manifest: &Value) -> &Value {
    &manifest["spec"]["template"]["metadata"]["labels"]
}

/// Whether a selector chooses what has these labels. An empty one chooses nothing that we could want.
fn selects(selector: &Value, labels: &Value) -> bool {
    let wanted = selector.as_object();
    wanted
        .is_some_and(|all| !all.is_empty() && all.iter().all(|(key, value)| labels[key] == *value))
}

/// Whether this autoscaler scales that.
fn scales(autoscaler: &Value, it: &Value) -> bool {
    let target = &autoscaler["spec"]["scaleTargetRef"];
    it["kind"] == target["kind"] && it["metadata"]["name"] == target["name"]
}

/// How many there are at least.
fn replicas(manifests: &[Value], pods: &Value) -> u64 {
    let autoscaler =
        manifests.iter().find(|it| it["kind"] == "HorizontalPodAutoscaler" && scales(it, pods));
    let number = autoscaler.map_or(&pods["spec"]["replicas"], |it| &it["spec"]["minReplicas"]);
    number.as_u64().unwrap_or(1)
}

type PodRule = (&'static str, fn(&Value) -> bool);
/// It looks at a container in its pod.
type ContainerRule = (&'static str, fn(&Value, &Value) -> bool);

// ANCHOR: container-rules
/// What has to hold for each container.
const CONTAINER: [ContainerRule; 11] = [
    ("no limit of memory: one leak takes the whole node", |_, container| {
        container["resources"]["limits"]["memory"].is_string()
    }),
    ("no requests: the scheduler takes it for free", |_, container| {
        let requests = &container["resources"]["requests"];
        !requests["memory"].is_null() && !requests["cpu"].is_null()
    }),
    ("an image without a fixed tag: what runs depends on the day", |_, container| {
        let image = container["image"].as_str().unwrap_or_default();
        let name = image.rsplit('/').next().unwrap_or_default();
        image.contains("@sha256:")
            || name.split_once(':').is_some_and(|(_, tag)| !tag.is_empty() && tag != "latest")
    }),
    ("no readiness probe: requests come before it listens", |_, container| {
        container["readinessProbe"]["httpGet"].is_object()
    }),
    ("no liveness probe: a process that hangs stays", |_, container| {
        container["livenessProbe"]["httpGet"].is_object()
    }),
    ("liveness asks what readiness asks: a backend that is away restarts everything", |_, it| {
        let path = |probe: &str| it[probe]["httpGet"]["path"].as_str();
        path("livenessProbe").is_none() || path("livenessProbe") != path("readinessProbe")
    }),
    ("a probe asks a port that the container does not name", |_, container| {
        ["readinessProbe", "livenessProbe"].iter().all(|probe| {
            let port = &container[*probe]["httpGet"]["port"];
            port.is_null()
                || list(&container["ports"])
                    .any(|it| it["name"] == *port || it["containerPort"] == *port)
        })
    }),
    ("it may run as root", |pod, container| Rights::of(pod, container).user.is_some()),
    ("it keeps rights of root", |pod, it| Rights::of(pod, it).no_capabilities),
    ("it may gain privileges", |pod, it| Rights::of(pod, it).no_new_privileges),
    ("its root file system can be written", |pod, it| Rights::of(pod, it).read_only),
];
// ANCHOR_END: container-rules

// ANCHOR: pod-rules
/// What has to hold for each pod.
const POD: [PodRule; 3] = [
    ("the grace period is not longer than the wait before SIGTERM and the longest job", |pod| {
        let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap_or(30);
        let waits = |it: &Value| it["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64();
        containers(pod).all(|it| grace > waits(it).unwrap_or(0) + crate::jobs::LONGEST / 1_000)
    }),
    ("nothing waits before SIGTERM: balancers still send requests", |pod| {
        containers(pod).all(|it| {
            let linger = list(&it["env"]).find(|variable| variable["name"] == "LINGER_MS");
            it["lifecycle"]["preStop"].is_object() || linger.is_some()
        })
    }),
    ("it gets a token for the cluster's API, and needs none", |pod| {
        pod["automountServiceAccountToken"] == false
    }),
];
// ANCHOR_END: pod-rules

/// Names of variables whose values are secret.
const SECRET: [&str; 4] = ["PASSWORD", "SECRET", "TOKEN", "KEY"];

/// Everything that is wrong with manifests that belong together.
pub fn check(manifests: &[Value]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for manifest in manifests {
        let kind = manifest["kind"].as_str().unwrap_or("?");
        let name = manifest["metadata"]["name"].as_str().unwrap_or("?");
        let mut rule = |says: &'static str, holds: bool| {
            if !holds {
                findings.push(Finding { about: format!("{kind}/{name}"), says });
            }
        };
        if let Some(pod) = pod(manifest) {
            let selector = &manifest["spec"]["selector"]["matchLabels"];
            rule("its selector does not choose its own pods", selects(selector, labels(manifest)));
            for (says, holds) in POD {
                rule(says, holds(pod));
            }
            for container in containers(pod) {
                for (says, holds) in CONTAINER {
                    rule(says, holds(pod, container));
                }
                let clear = list(&container["env"]).any(|variable| {
                    let name = variable["name"].as_str().unwrap_or_default();
                    variable["value"].is_string() && SECRET.iter().any(|it| name.contains(it))
                });
                rule("a secret stands in the manifest", !clear);
            }
        }
        let chosen = |selector: &Value| {
            manifests.iter().filter(|it| pod(it).is_some()).find(|it| selects(selector, labels(it)))
        };
        match kind {
            "Service" => {
                let chosen = chosen(&manifest["spec"]["selector"]);
                rule("its selector chooses no pod", chosen.is_some());
            }
            "PodDisruptionBudget" => {
                let pods = chosen(&manifest["spec"]["selector"]["matchLabels"]);
                rule("its selector chooses no pod", pods.is_some());
                let replicas = pods.map_or(1, |pods| replicas(manifests, pods));
                let least = manifest["spec"]["minAvailable"].as_u64().unwrap_or(0);
                rule("it never lets a node be drained", least < replicas);
            }
            "HorizontalPodAutoscaler" => {
                let scaled = manifests.iter().find(|it| scales(manifest, it));
                rule("it scales something that is not there", scaled.is_some());
                let fixed = scaled.is_some_and(|it| !it["spec"]["replicas"].is_null());
                rule("each deployment undoes its work: the replicas stand there too", !fixed);
            }
            _ => {}
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_manifest_does_not_say_about_rights_is_the_default_and_that_is_everything() {
        assert_eq!(Rights::of(&json!({}), &json!({})), Rights::default());
        let pod = json!({ "securityContext": { "runAsUser": 65532 } });
        let container = json!({ "securityContext": {
            "readOnlyRootFilesystem": true,
            "allowPrivilegeEscalation": false,
            "capabilities": { "drop": ["ALL"] },
        } });
        let flags = Rights::of(&pod, &container).flags();
        assert_eq!(flags.len(), 4, "{flags:?}");
        let root = json!({ "securityContext": { "runAsUser": 0 } });
        assert_eq!(Rights::of(&pod, &root).user, None, "the container's own word counts");
    }

    #[test]
    fn an_image_has_a_tag_that_does_not_move() {
        let (_, holds) = CONTAINER[2];
        for (image, good) in [
            ("app:1.2", true),
            ("registry:5000/app:1.2", true),
            ("app@sha256:00", true),
            ("app", false),
            ("app:latest", false),
            ("registry:5000/app", false),
        ] {
            assert_eq!(holds(&json!({}), &json!({ "image": image })), good, "{image}");
        }
    }
}
