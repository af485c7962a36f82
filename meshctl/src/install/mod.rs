//! What is installed: component files with a closed set of placeholders, made into objects, manifests or a chart.
//!
//! `deploy/components` is the one source; a profile says which components and values. Never here: a cluster, files
//! read at run time. Called by the verbs `install`, `uninstall` and `manifest`.

mod chart;
mod profile;

use std::fmt;

use serde_json::Value;

pub(crate) use chart::chart;
pub(crate) use profile::{Profile, Setting};

/// One component: its objects are installed together or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Component {
    /// Mesh-wide settings.
    Mesh,
    /// The certificate authority.
    Citadel,
    /// Discovery and validation.
    Pilot,
    /// The sidecar webhook.
    Injector,
    /// The way in.
    IngressGateway,
    /// The way out.
    EgressGateway,
}

impl Component {
    /// All of them, in the order they are installed.
    pub(crate) const ALL: [Self; 6] =
        [Self::Mesh, Self::Citadel, Self::Pilot, Self::Injector, Self::IngressGateway, Self::EgressGateway];

    /// The file, as it stands in `deploy/components`.
    fn file(self) -> &'static str {
        match self {
            Self::Mesh => include_str!("../../../deploy/components/mesh.yaml"),
            Self::Citadel => include_str!("../../../deploy/components/citadel.yaml"),
            Self::Pilot => include_str!("../../../deploy/components/pilot.yaml"),
            Self::Injector => include_str!("../../../deploy/components/injector.yaml"),
            Self::IngressGateway => include_str!("../../../deploy/components/ingressgateway.yaml"),
            Self::EgressGateway => include_str!("../../../deploy/components/egressgateway.yaml"),
        }
    }

    /// The Deployment to wait for, where it has one.
    pub(crate) fn deployment(self) -> Option<&'static str> {
        match self {
            Self::Mesh => None,
            Self::Citadel => Some("istio-citadel"),
            Self::Pilot => Some("istio-pilot"),
            Self::Injector => Some("istio-sidecar-injector"),
            Self::IngressGateway => Some("istio-ingressgateway"),
            Self::EgressGateway => Some("istio-egressgateway"),
        }
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mesh => "Mesh settings",
            Self::Citadel => "Citadel (certificate authority)",
            Self::Pilot => "Pilot (discovery)",
            Self::Injector => "Sidecar injector",
            Self::IngressGateway => "Ingress gateway",
            Self::EgressGateway => "Egress gateway",
        })
    }
}

/// Every placeholder that a component file may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placeholder {
    /// Namespace of the mesh.
    Namespace,
    /// Image registry and prefix.
    Hub,
    /// Image tag.
    Tag,
    /// Trust domain of identities.
    TrustDomain,
    /// Where proxies log requests; empty: nowhere.
    AccessLogFile,
    /// `NONE`, or `MUTUAL_TLS` for a mesh that refuses plaintext.
    AuthPolicy,
    /// `ALLOW_ANY` or `REGISTRY_ONLY`.
    OutboundTrafficPolicy,
}

impl Placeholder {
    /// All of them.
    const ALL: [Self; 7] = [
        Self::Namespace,
        Self::Hub,
        Self::Tag,
        Self::TrustDomain,
        Self::AccessLogFile,
        Self::AuthPolicy,
        Self::OutboundTrafficPolicy,
    ];

    /// As component files write it.
    fn text(self) -> &'static str {
        match self {
            Self::Namespace => "${NAMESPACE}",
            Self::Hub => "${HUB}",
            Self::Tag => "${TAG}",
            Self::TrustDomain => "${TRUST_DOMAIN}",
            Self::AccessLogFile => "${ACCESS_LOG_FILE}",
            Self::AuthPolicy => "${AUTH_POLICY}",
            Self::OutboundTrafficPolicy => "${OUTBOUND_TRAFFIC_POLICY}",
        }
    }
}

fn filled(file: &str, value: impl Fn(Placeholder) -> String) -> String {
    Placeholder::ALL
        .iter()
        .fold(file.to_owned(), |text, placeholder| text.replace(placeholder.text(), &value(*placeholder)))
}

/// The CRDs of every kind the mesh reads, generated from the object types; then those of Istio's old groups, of which it
/// only tells what to write instead.
const CRDS: &str =
    concat!(include_str!("../../../deploy/crds/istio.yaml"), include_str!("../../../deploy/crds/old.yaml"));

/// The CRDs as YAML documents.
pub(crate) fn crds_yaml() -> &'static str {
    CRDS
}

/// Whether a manifest holds the CRDs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crds {
    /// It does.
    With,
    /// They are applied from `deploy/crds`.
    Without,
}

/// What a profile installs, as YAML documents: namespace, CRDs, then component by component.
pub(crate) fn manifest(profile: &Profile, crds: Crds) -> String {
    let mut text = String::from("# Made from deploy/components and deploy/crds by `cargo xtask gen`; edit those.\n");
    text.push_str(&namespace_yaml(&profile.namespace));
    let crds = (crds == Crds::With).then(|| CRDS.to_owned());
    for part in crds.into_iter().chain(profile.components.iter().map(|part| component_yaml(*part, profile))) {
        if !part.trim_start().starts_with("---") {
            text.push_str("---\n");
        }
        text.push_str(part.trim_end());
        text.push('\n');
    }
    text
}

/// The namespace of the mesh.
pub(crate) fn namespace_yaml(namespace: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {namespace}\n  labels:\n    istio-injection: disabled\n"
    )
}

/// One component's objects as YAML documents.
pub(crate) fn component_yaml(component: Component, profile: &Profile) -> String {
    filled(component.file(), |placeholder| profile.value(placeholder))
}

/// YAML documents as JSON values, empty documents left out.
pub(crate) fn documents(yaml: &str) -> anyhow::Result<Vec<Value>> {
    let all: Vec<Value> = serde_saphyr::from_multiple(yaml).map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(all.into_iter().filter(|document| !document.is_null()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filled_component_holds_no_placeholder() {
        let profile = Profile::named("demo").unwrap();
        for component in Component::ALL {
            let text = component_yaml(component, &profile);
            let left = text.lines().find(|line| !line.trim_start().starts_with('#') && line.contains("${"));
            assert_eq!(left, None, "{component}");
        }
    }

    #[test]
    fn every_object_of_a_profile_is_named_once() {
        for name in Profile::NAMES {
            let profile = Profile::named(name).unwrap();
            let mut seen = std::collections::BTreeSet::new();
            for object in documents(&manifest(&profile, Crds::With)).unwrap() {
                let key = format!("{}/{}", object["kind"], object["metadata"]["name"]);
                assert!(seen.insert(key.clone()), "{name}: {key} twice");
            }
        }
    }

    #[test]
    fn the_deployment_to_wait_for_is_in_its_component() {
        let profile = Profile::named("demo").unwrap();
        for component in Component::ALL {
            let names: Vec<String> = documents(&component_yaml(component, &profile))
                .unwrap()
                .iter()
                .filter(|object| object["kind"] == "Deployment")
                .map(|object| object["metadata"]["name"].as_str().unwrap().to_owned())
                .collect();
            assert_eq!(names.first().map(String::as_str), component.deployment(), "{component}");
        }
    }
}
