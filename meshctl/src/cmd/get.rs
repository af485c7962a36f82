//! `meshctl get KIND`: lists the mesh's objects, in the columns that istioctl printed.
//!
//! Never here: objects of other groups; kubectl lists those. Called by `main`.

use std::process::ExitCode;

use kube::{
    Api,
    api::{DynamicObject, ListParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::Value;

use crate::{cluster::Target, fail, render};

/// Flags of `get`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// virtualservices, destinationrules, gateways, serviceentries, … or all
    kind: String,
    /// Only this object.
    object: Option<String>,
    /// Output: short (a table), yaml or json.
    #[arg(short = 'o', long, default_value = "short")]
    output: Output,
    /// In all namespaces.
    #[arg(short = 'A', long)]
    all_namespaces: bool,
}

/// How to print.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Output {
    /// A table.
    #[value(alias = "table", alias = "wide")]
    Short,
    /// YAML.
    Yaml,
    /// JSON.
    Json,
}

struct Kind {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    short: &'static str,
    heads: &'static [&'static str],
    cells: fn(&Value) -> Vec<String>,
}

const KINDS: &[Kind] = &[
    Kind {
        group: "networking.istio.io",
        version: "v1",
        kind: "VirtualService",
        plural: "virtualservices",
        short: "vs",
        heads: &["VIRTUAL-SERVICE NAME", "GATEWAYS", "HOSTS", "#HTTP", "#TCP"],
        cells: virtual_service,
    },
    Kind {
        group: "networking.istio.io",
        version: "v1",
        kind: "DestinationRule",
        plural: "destinationrules",
        short: "dr",
        heads: &["DESTINATION-RULE NAME", "HOST", "SUBSETS"],
        cells: destination_rule,
    },
    Kind {
        group: "networking.istio.io",
        version: "v1",
        kind: "Gateway",
        plural: "gateways",
        short: "gw",
        heads: &["GATEWAY NAME", "HOSTS"],
        cells: gateway,
    },
    Kind {
        group: "networking.istio.io",
        version: "v1",
        kind: "ServiceEntry",
        plural: "serviceentries",
        short: "se",
        heads: &["SERVICE-ENTRY NAME", "HOSTS", "PORTS"],
        cells: service_entry,
    },
    Kind {
        group: "networking.istio.io",
        version: "v1",
        kind: "Sidecar",
        plural: "sidecars",
        short: "sidecar",
        heads: &["NAME"],
        cells: only_name,
    },
    Kind {
        group: "networking.istio.io",
        version: "v1",
        kind: "WorkloadEntry",
        plural: "workloadentries",
        short: "we",
        heads: &["NAME"],
        cells: only_name,
    },
    Kind {
        group: "networking.istio.io",
        version: "v1",
        kind: "WorkloadGroup",
        plural: "workloadgroups",
        short: "wg",
        heads: &["NAME"],
        cells: only_name,
    },
    Kind {
        group: "networking.istio.io",
        version: "v1alpha3",
        kind: "EnvoyFilter",
        plural: "envoyfilters",
        short: "envoyfilter",
        heads: &["NAME"],
        cells: only_name,
    },
    Kind {
        group: "security.istio.io",
        version: "v1",
        kind: "PeerAuthentication",
        plural: "peerauthentications",
        short: "pa",
        heads: &["NAME", "MODE"],
        cells: peer_authentication,
    },
    Kind {
        group: "security.istio.io",
        version: "v1",
        kind: "AuthorizationPolicy",
        plural: "authorizationpolicies",
        short: "ap",
        heads: &["NAME"],
        cells: only_name,
    },
    Kind {
        group: "security.istio.io",
        version: "v1",
        kind: "RequestAuthentication",
        plural: "requestauthentications",
        short: "ra",
        heads: &["NAME"],
        cells: only_name,
    },
    Kind {
        group: "telemetry.istio.io",
        version: "v1",
        kind: "Telemetry",
        plural: "telemetries",
        short: "telemetry",
        heads: &["NAME"],
        cells: only_name,
    },
];

/// Lists.
pub(crate) async fn run(target: &Target, args: Args) -> anyhow::Result<ExitCode> {
    let wanted = args.kind.to_lowercase();
    let kinds: Vec<&Kind> = KINDS
        .iter()
        .filter(|kind| {
            wanted == "all"
                || [kind.plural, kind.short].contains(&wanted.as_str())
                || kind.kind.to_lowercase() == wanted
        })
        .collect();
    if kinds.is_empty() {
        let known: Vec<&str> = KINDS.iter().map(|kind| kind.plural).collect();
        return Err(fail::coded(
            fail::USAGE,
            format!("there is no kind {:?} in the mesh; kinds are: {}", args.kind, known.join(", ")),
        ));
    }
    let client = target.client().await?;
    let mut found = Vec::new();
    for kind in kinds {
        let resource =
            ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(kind.group, kind.version, kind.kind), kind.plural);
        let api: Api<DynamicObject> = if args.all_namespaces {
            Api::all_with(client.clone(), &resource)
        } else {
            Api::namespaced_with(client.clone(), target.namespace(), &resource)
        };
        let objects = match &args.object {
            Some(name) => vec![api.get(name).await?],
            None => api.list(&ListParams::default()).await?.items,
        };
        let values: Result<Vec<Value>, _> = objects.iter().map(serde_json::to_value).collect();
        found.push((kind, values?));
    }
    show(&found, args.output)
}

fn show(found: &[(&Kind, Vec<Value>)], output: Output) -> anyhow::Result<ExitCode> {
    let all: Vec<&Value> = found.iter().flat_map(|(_, objects)| objects).collect();
    match output {
        Output::Short if all.is_empty() => eprintln!("No resources found."),
        Output::Short => {
            for (kind, objects) in found.iter().filter(|(_, objects)| !objects.is_empty()) {
                let heads: Vec<&str> = kind.heads.iter().copied().chain(["NAMESPACE", "AGE"]).collect();
                let rows: Vec<Vec<String>> = objects.iter().map(|object| row(kind, object)).collect();
                render::print(&render::table(&heads, &rows))?;
            }
        }
        Output::Json => render::print(&format!("{}\n", serde_json::to_string_pretty(&all)?))?,
        Output::Yaml => {
            let documents: Result<Vec<String>, _> = all.iter().map(serde_saphyr::to_string).collect();
            render::print(&documents?.join("---\n"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn row(kind: &Kind, object: &Value) -> Vec<String> {
    let mut cells = (kind.cells)(object);
    cells.push(text(&object["metadata"]["namespace"]));
    let created =
        object["metadata"]["creationTimestamp"].as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    cells.push(
        created.map_or_else(
            || "<unknown>".to_owned(),
            |at| render::age(jiff::Timestamp::now().as_second() - at.as_second()),
        ),
    );
    cells
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn list(value: &Value, inner: impl Fn(&Value) -> String) -> String {
    value.as_array().into_iter().flatten().map(inner).collect::<Vec<_>>().join(",")
}

fn name(object: &Value) -> String {
    text(&object["metadata"]["name"])
}

fn only_name(object: &Value) -> Vec<String> {
    vec![name(object)]
}

fn virtual_service(object: &Value) -> Vec<String> {
    let spec = &object["spec"];
    let count = |field: &str| spec[field].as_array().map_or(0, Vec::len).to_string();
    vec![name(object), list(&spec["gateways"], text), list(&spec["hosts"], text), count("http"), count("tcp")]
}

fn destination_rule(object: &Value) -> Vec<String> {
    let spec = &object["spec"];
    vec![name(object), text(&spec["host"]), list(&spec["subsets"], |subset| text(&subset["name"]))]
}

fn gateway(object: &Value) -> Vec<String> {
    vec![name(object), list(&object["spec"]["servers"], |server| list(&server["hosts"], text))]
}

fn service_entry(object: &Value) -> Vec<String> {
    let spec = &object["spec"];
    let port = |port: &Value| format!("{}/{}", text(&port["protocol"]), port["number"]);
    vec![name(object), list(&spec["hosts"], text), list(&spec["ports"], port)]
}

fn peer_authentication(object: &Value) -> Vec<String> {
    vec![name(object), text(&object["spec"]["mtls"]["mode"])]
}
