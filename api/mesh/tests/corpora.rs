//! Istio's own cases of validation and analysis, compared with our notes.
//!
//! Where we differ, the case is listed with the reason; a difference that is not listed fails, and so does a listed one that
//! is gone. Never here: cases of our own (`rules.rs`). Without the public data it is not run and says so.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test")]

mod support;

use std::collections::BTreeSet;

use api::note::Notes;
use api_mesh::{
    mesh,
    model::{Settings, parse},
};
use serde_json::Value;
use support::{documents, object, shared};

/// Why an object is refused, or none: as the admission webhook would answer (the CRD's own rules come before it).
fn refusal(value: Value) -> Option<String> {
    let stored = match object(value) {
        Ok(stored) => stored,
        Err(error) => return Some(error.to_string()),
    };
    let mut notes = Notes::new();
    parse(&stored, &Settings::default(), &mut notes);
    notes.iter().find(|note| note.severity == api::note::Severity::Error).map(ToString::to_string)
}

/// Cases of `validation` that come out otherwise here: kind of case, number in the file, and why.
const VALIDATION: &[(&str, usize, &str)] = &[
    ("authz-valid", 0, "requestPrincipals, remoteIpBlocks and conditions on tokens are not enforced yet"),
    ("peerauth-invalid", 3, "an empty portLevelMtls is refused by the CRD's schema; as a map it says nothing"),
    ("serviceentry-valid", 0, "`001:db8::` in a flow sequence is a map to our YAML parser, a text to Go's"),
];

#[test]
fn validation_cases() {
    let folder = shared().join("corpora/validation");
    if !folder.is_dir() {
        println!("not run: {} is absent; set FERROMESH_SHARED", folder.display());
        return;
    }
    let mut wrong = Vec::new();
    let (mut agree, mut all) = (0, 0);
    for kind in ["authz", "destinationrule", "peerauth", "serviceentry", "workloadentry"] {
        for (suffix, good) in [("valid", true), ("invalid", false)] {
            let name = format!("{kind}-{suffix}");
            let text = std::fs::read_to_string(folder.join(format!("{name}.yaml"))).unwrap();
            for (index, mut value) in documents(&text).into_iter().enumerate() {
                all += 1;
                let expected = value.as_object_mut().unwrap().remove("_err");
                let refused = refusal(value);
                let same = refused.is_none() == good;
                let listed = VALIDATION.iter().any(|(case, at, _)| *case == name && *at == index);
                agree += usize::from(same);
                if same == listed {
                    wrong.push(format!("{name}[{index}] expected {expected:?} found {refused:?} listed {listed}"));
                }
            }
        }
    }
    println!("{agree} of {all} cases agree");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Cases of `analysis` that come out otherwise here, and why.
const ANALYSIS: &[(&str, &str)] = &[
    ("gatewayBadPort", "no Pod has the selector's labels: without a gateway there is nothing to compare ports with"),
    ("gatewayCustomIngressGateway", "the Service maps 80 to 8003, and a server is written by the Service's port"),
    (
        "virtualServiceDestinationHosts",
        "ports with protocol HTTP are no TCP ports; an object with an empty destination is refused; exportTo of unknown namespaces is not looked at",
    ),
    ("host defined in virtualservice not found in the gateway", "a Gateway whose servers share a port name is refused"),
    ("virtualServiceGateways", "VirtualServices without rules are refused"),
    (
        "destinationrule with credentialname, simple at destinationlevel, no workloadSelector",
        "credentialName is refused: not enforced yet",
    ),
];

/// Analyzers whose findings are ours too, with the codes they make.
const ANALYZERS: &[(&str, &[&str])] = &[
    ("gateway.IngressGatewayPortAnalyzer", &["IST0162"]),
    ("gateway.ConflictingGatewayAnalyzer", &["IST0145"]),
    ("virtualservice.ConflictingMeshGatewayHostsAnalyzer", &["IST0109"]),
    ("virtualservice.DestinationHostAnalyzer", &["IST0101", "IST0112"]),
    ("virtualservice.GatewayAnalyzer", &["IST0101", "IST0132", "IST0165"]),
    ("serviceentry.ProtocolAddressesAnalyzer", &["IST0134"]),
    ("serviceentry.ConflictingServiceEntryProtocolAnalyzer", &["IST0177"]),
    ("destinationrule.PodNotSelectedAnalyzer", &["IST0173", "IST0174"]),
    ("destinationrule.CaCertificateAnalyzer", &["IST0128", "IST0129"]),
];

#[test]
fn analysis_cases() {
    let folder = shared().join("corpora/analysis");
    let Ok(text) = std::fs::read_to_string(folder.join("cases.json")) else {
        println!("not run: {} is absent; set FERROMESH_SHARED", folder.display());
        return;
    };
    let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
    let mut wrong = Vec::new();
    let (mut agree, mut all) = (0, 0);
    for case in &cases {
        let name = case["name"].as_str().unwrap();
        let analyzer = case["analyzer"].as_str().unwrap().trim_start_matches('&').trim_end_matches("{}");
        let Some((_, codes)) = ANALYZERS.iter().find(|(known, _)| *known == analyzer) else { continue };
        all += 1;
        let mut yaml = String::new();
        for file in case["files"].as_array().unwrap() {
            yaml += &std::fs::read_to_string(folder.join(file.as_str().unwrap())).unwrap();
            yaml += "\n---\n";
        }
        let objects: Vec<_> = documents(&yaml).into_iter().filter_map(|value| object(value).ok()).collect();
        let (_, notes) = mesh::resolve(&support::catalog(&objects));
        let found: BTreeSet<(String, String)> = notes
            .iter()
            .filter(|note| note.code.as_deref().is_some_and(|code| codes.contains(&code)))
            // the same code stands for any reference: each analyzer looks at its own fields
            .filter(|note| match analyzer {
                "virtualservice.GatewayAnalyzer" => note.path.starts_with("spec.gateways"),
                "virtualservice.DestinationHostAnalyzer" => {
                    note.object.kind == "VirtualService"
                        && !note.path.starts_with("spec.gateways")
                        && !note.path.ends_with(".subset")
                }
                _ => true,
            })
            .map(|note| {
                (
                    note.code.clone().unwrap(),
                    note.object.kind.clone() + " " + &note.object.namespace + "/" + &note.object.name,
                )
            })
            .collect();
        let expected: BTreeSet<(String, String)> = case["expected"]
            .as_array()
            .unwrap()
            .iter()
            .map(|message| {
                let origin = message["origin"].as_str().unwrap();
                let (kind, object) = origin.split_once(' ').unwrap();
                let object = if object.contains('/') { object.to_owned() } else { format!("default/{object}") };
                (message["code"].as_str().unwrap().to_owned(), format!("{kind} {object}"))
            })
            .collect();
        let same = found == expected;
        let listed = ANALYSIS.iter().any(|(case, _)| *case == name);
        agree += usize::from(same);
        if same == listed {
            let missing: Vec<_> = expected.difference(&found).collect();
            let extra: Vec<_> = found.difference(&expected).collect();
            wrong.push(format!("{name}: missing {missing:?} extra {extra:?} listed {listed}"));
        }
    }
    println!("{agree} of {all} cases agree");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Objects of the public samples that admission refuses, and why.
const SAMPLES: &[&str] = &[
    // EnvoyFilter is not enforced yet
    "bookinfo/policy/productpage_envoy_ratelimit.yaml EnvoyFilter/filter-ratelimit-svc.istio-system",
    "bookinfo/policy/productpage_envoy_ratelimit.yaml EnvoyFilter/filter-ratelimit.istio-system",
    "ratelimit/local-rate-limit-service.yaml EnvoyFilter/filter-local-ratelimit-svc.istio-system",
];

#[test]
fn the_public_samples_are_accepted() {
    let folder = shared().join("istio/samples");
    if !folder.is_dir() {
        println!("not run: {} is absent; set FERROMESH_SHARED", folder.display());
        return;
    }
    let mut found = BTreeSet::new();
    let mut folders = vec![folder.clone()];
    let mut read = 0;
    while let Some(at) = folders.pop() {
        for entry in std::fs::read_dir(at).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if path.extension().is_none_or(|extension| extension != "yaml") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            for part in text.split("\n---") {
                let Ok(value) = serde_saphyr::from_str::<Value>(part.trim_start_matches('-')) else { continue };
                let Ok(stored) = object(value) else { continue };
                read += 1;
                let mut notes = Notes::new();
                parse(&stored, &Settings::default(), &mut notes);
                let errors: Vec<_> = notes.iter().filter(|note| note.severity == api::note::Severity::Error).collect();
                if let Some(note) = errors.first() {
                    let file = path.strip_prefix(&folder).unwrap().display().to_string();
                    found.insert((format!("{file} {}", stored.reference()), note.to_string()));
                }
            }
        }
    }
    assert!(read >= 90, "only {read} objects");
    let listed = |name: &str| SAMPLES.contains(&name);
    let surprises: Vec<_> = found.iter().filter(|(name, _)| !listed(name)).collect();
    assert!(surprises.is_empty(), "{surprises:#?}");
    let stale: Vec<_> = SAMPLES.iter().filter(|name| !found.iter().any(|(known, _)| known == *name)).collect();
    assert!(stale.is_empty(), "{stale:#?}");
}
