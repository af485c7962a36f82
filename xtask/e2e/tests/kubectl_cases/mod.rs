//! The everyday things, one function each: kubectl does it, and says what a real cluster would make it say.
//!
//! Never here: which versions do them. Called by the suite `kubectl`.

mod objects;
mod pods;
mod server;
mod workloads;

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::kubectl::Kubectl;

/// One thing: a kubectl in a fresh namespace, and its version.
pub(crate) type Case = fn(&Kubectl, &str) -> Result<()>;

/// Everything.
pub(crate) const CASES: &[(&str, Case)] = &[
    ("get_output_forms", objects::get_output_forms),
    ("get_watch", objects::get_watch),
    ("selectors", objects::selectors),
    ("apply_and_prune_fields", objects::apply_and_prune_fields),
    ("apply_server_side", objects::apply_server_side),
    ("diff", objects::diff),
    ("create", objects::create),
    ("edit", objects::edit),
    ("patch_three_kinds", objects::patch_three_kinds),
    ("label_and_annotate", objects::label_and_annotate),
    ("scale", workloads::scale),
    ("rollout", workloads::rollout),
    ("describe", workloads::describe),
    ("logs", pods::logs),
    ("exec", pods::exec),
    ("port_forward", pods::port_forward),
    ("wait", workloads::wait),
    ("run_attached", pods::run_attached),
    ("expose", workloads::expose),
    ("explain", server::explain),
    ("api_resources", server::api_resources),
    ("delete_with_cascade_modes", workloads::delete_with_cascade_modes),
    ("events", workloads::events),
    ("refusals", server::refusals),
    ("unknown_image", workloads::unknown_image),
    ("custom_resources", server::custom_resources),
];

/// What every version does.
pub(crate) const SHORT: &[&str] = &[
    "get_output_forms",
    "apply_and_prune_fields",
    "rollout",
    "logs",
    "exec",
    "port_forward",
    "run_attached",
    "custom_resources",
];

const LIMIT: Duration = Duration::from_secs(60);

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: registry.istio.io/release/examples-helloworld-v1:1.0
        ports: [{containerPort: 5000}]
        readinessProbe: {httpGet: {path: /health, port: 5000}, periodSeconds: 1}
";

fn map(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, labels: {{tier: {name}}}}}\ndata: {{a: \"1\", b: \"2\"}}\n"
    )
}

fn has(text: &str, part: &str) -> Result<()> {
    ensure!(text.contains(part), "expected {part:?} in:\n{text}");
    Ok(())
}

fn sleeper(k: &Kubectl) -> Result<()> {
    k.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: sleeper, labels: {app: sleeper}}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n  - {name: main, image: curlimages/curl, command: [sleep, '600']}\n")?;
    k.ok(&["wait", "--for=condition=Ready", "pod/sleeper", "--timeout=60s"]).map(drop)
}
