//! The CustomResourceDefinitions of Istio's kinds, made from the types.
//!
//! What exists, of which type, within which bounds comes from the shapes; here are only names, columns and versions.
//! Never here: fields. Printed by the example `crds` into `deploy/crds`.
//! Called by that example and by what tests them.

use serde_json::{Value, json};

use super::{Kind, schema};

/// One CustomResourceDefinition for each of Istio's kinds, ordered by group and name.
pub fn crds() -> Vec<Value> {
    let mut kinds: Vec<Kind> = Kind::ALL.iter().copied().filter(|kind| kind.is_istio()).collect();
    kinds.sort_by_key(|kind| (kind.group(), kind.plural()));
    kinds.into_iter().filter_map(crd).collect()
}

fn crd(kind: Kind) -> Option<Value> {
    let shape = schema::of(kind)?;
    let names = Names::of(kind);
    let group = kind.group();
    let family = group.split('.').next().unwrap_or_default();
    let mut labels = json!({ "app": "istio-pilot", "chart": "istio", "heritage": "Tiller", "release": "istio" });
    if let ("security" | "telemetry", Value::Object(labels)) = (family, &mut labels) {
        labels.insert("istio".into(), family.into());
    }
    let mut root = json!({
        "type": "object",
        "properties": { "spec": shape.spec, "status": shape.status },
    });
    if names.spec_required {
        root["required"] = json!(["spec"]);
    }
    let versions = kind.versions().iter().map(|version| {
        let mut entry = json!({
            "name": version,
            "served": true,
            "storage": *version == names.storage,
            "subresources": { "status": {} },
            "schema": { "openAPIV3Schema": root },
        });
        if !names.columns.is_empty() {
            entry["additionalPrinterColumns"] = names.columns.iter().copied().map(Column::json).collect();
        }
        entry
    });
    let mut written = json!({
        "kind": kind.name(),
        "listKind": format!("{}List", kind.name()),
        "plural": kind.plural(),
        "singular": kind.name().to_lowercase(),
        "categories": ["istio-io", format!("{family}-istio-io")],
    });
    if !names.short.is_empty() {
        written["shortNames"] = json!([names.short]);
    }
    Some(json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{}.{group}", kind.plural()),
            "labels": labels,
            "annotations": { "helm.sh/resource-policy": "keep" },
        },
        "spec": {
            "group": group,
            "names": written,
            "scope": "Namespaced",
            "versions": versions.collect::<Vec<_>>(),
        },
    }))
}

/// How a kind is named and shown; what its type cannot say.
struct Names {
    short: &'static str,
    storage: &'static str,
    spec_required: bool,
    columns: &'static [Column],
}

#[derive(Clone, Copy)]
enum Column {
    Age,
    Field { name: &'static str, path: &'static str, description: &'static str },
}

const fn field(name: &'static str, path: &'static str, description: &'static str) -> Column {
    Column::Field { name, path, description }
}

impl Column {
    fn json(self) -> Value {
        match self {
            Self::Age => json!({
                "name": "Age",
                "type": "date",
                "jsonPath": ".metadata.creationTimestamp",
                "description": "Time since it was created",
            }),
            Self::Field { name, path, description } => {
                json!({ "name": name, "type": "string", "jsonPath": path, "description": description })
            }
        }
    }
}

const HOST: &[Column] = &[field("Host", ".spec.host", "Service it is for"), Column::Age];
const HOSTS: &[Column] = &[
    field("Gateways", ".spec.gateways", "Gateways and sidecars that apply it"),
    field("Hosts", ".spec.hosts", "Names it is for"),
    Column::Age,
];
const ENTRY: &[Column] = &[
    field("Hosts", ".spec.hosts", "Names of the service"),
    field("Location", ".spec.location", "Whether it is part of the mesh"),
    field("Resolution", ".spec.resolution", "How its endpoints are found"),
    Column::Age,
];
const WORKLOAD: &[Column] = &[Column::Age, field("Address", ".spec.address", "Address of the workload")];
const ACTION: &[Column] = &[field("Action", ".spec.action", "What becomes of a request that matches"), Column::Age];
const MODE: &[Column] = &[field("Mode", ".spec.mtls.mode", "Whether callers must use mutual TLS"), Column::Age];

impl Names {
    fn of(kind: Kind) -> Self {
        let (short, spec_required, columns): (&str, bool, &[Column]) = match kind {
            Kind::VirtualService => ("vs", false, HOSTS),
            Kind::DestinationRule => ("dr", false, HOST),
            Kind::Gateway => ("gw", false, &[]),
            Kind::ServiceEntry => ("se", true, ENTRY),
            Kind::WorkloadEntry => ("we", true, WORKLOAD),
            Kind::WorkloadGroup => ("wg", true, &[Column::Age]),
            Kind::AuthorizationPolicy => ("ap", false, ACTION),
            Kind::PeerAuthentication => ("pa", false, MODE),
            Kind::RequestAuthentication => ("ra", false, &[]),
            Kind::Telemetry => ("telemetry", false, &[Column::Age]),
            Kind::WasmPlugin | Kind::TrafficExtension => ("", true, &[Column::Age]),
            Kind::Sidecar
            | Kind::EnvoyFilter
            | Kind::ProxyConfig
            | Kind::Service
            | Kind::Endpoints
            | Kind::EndpointSlice
            | Kind::Pod
            | Kind::Namespace
            | Kind::Node
            | Kind::Secret
            | Kind::ConfigMap => ("", false, &[]),
        };
        // Telemetry is still stored in its first version, so that clusters which have it need no migration.
        let newest = kind.versions().first().copied().unwrap_or_default();
        let storage = if kind == Kind::Telemetry { "v1alpha1" } else { newest };
        Self { short, storage, spec_required, columns }
    }
}
