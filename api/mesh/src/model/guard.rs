//! Reads the kinds that guard something: PeerAuthentication, and those that are not enforced yet.
//!
//! What is not enforced is refused; stored all the same, what it selects denies. A bad PeerAuthentication means STRICT.
//! Never here: which workloads are selected (`mesh::peer`). Called by `model::parse`.

use std::sync::Arc;

use std::collections::BTreeMap;

use api::note::Notes;
use base64::Engine as _;

use super::{
    Model,
    base::{Judge, Labels, Meta},
    rule::{Guard, MtlsMode, PeerAuthentication, TlsSecret},
    text,
};
use crate::object::{Metadata, Object, core, extensions, networking, security};

fn mode(raw: Option<security::MutualTlsMode>) -> Option<MtlsMode> {
    match raw {
        None | Some(security::MutualTlsMode::Unset) => None,
        Some(security::MutualTlsMode::Disable) => Some(MtlsMode::Disable),
        Some(security::MutualTlsMode::Permissive) => Some(MtlsMode::Permissive),
        Some(security::MutualTlsMode::Strict) => Some(MtlsMode::Strict),
    }
}

pub(crate) fn peer_authentication(
    object: &Object<security::PeerAuthentication>,
    notes: &mut Notes,
) -> PeerAuthentication {
    let meta = Meta::of("PeerAuthentication", &object.metadata);
    let mut judge = Judge::new(meta.object.clone(), notes);
    let security::PeerAuthentication { selector, mtls, port_level_mtls } = &object.spec;
    let selector = selector
        .as_ref()
        .map(|raw| text::selector(&mut judge, "spec.selector.matchLabels", &raw.match_labels))
        .filter(|labels| !labels.is_empty());
    if !port_level_mtls.is_empty() && selector.is_none() {
        judge.error("spec", "portLevelMtls requires selector");
    }
    let mut ports = BTreeMap::new();
    for (number, security::MutualTls { mode: raw }) in port_level_mtls {
        let path = format!("spec.portLevelMtls[{number}]");
        match number.parse::<u16>().ok().filter(|port| *port > 0) {
            Some(port) => {
                ports.insert(port, mode(*raw));
            }
            None => judge.error(path, "port must be between 1-65535"),
        }
    }
    if judge.errors() > 0 {
        // what was meant is unknown, so the safest holds
        return PeerAuthentication { meta, selector, mode: Some(MtlsMode::Strict), ports: BTreeMap::new() };
    }
    PeerAuthentication { meta, selector, mode: mode(mtls.as_ref().and_then(|mtls| mtls.mode)), ports }
}

/// A kind that is refused as a whole; what it selects denies.
fn refused(kind: &str, metadata: &Metadata, selector: Option<&Labels>, refs: bool, notes: &mut Notes) -> Model {
    let meta = Meta::of(kind, metadata);
    let mut judge = Judge::new(meta.object.clone(), notes);
    judge.error("", format!("not enforced yet: {kind} is refused rather than ignored; where it is stored, what it selects denies all requests"));
    let selector = selector.cloned().unwrap_or_default();
    if refs && selector.is_empty() {
        judge.warn("spec.targetRefs", "not honoured yet: gateways and waypoints of the Gateway API are not served");
        return Model::Unguarded;
    }
    Model::Guard(Guard { meta, selector })
}

pub(crate) fn request_authentication(object: &Object<security::RequestAuthentication>, notes: &mut Notes) -> Model {
    let security::RequestAuthentication { selector, target_ref, target_refs, jwt_rules: _ } = &object.spec;
    let refs = target_ref.is_some() || !target_refs.is_empty();
    let labels = selector.as_ref().map(|selector| &selector.match_labels);
    refused("RequestAuthentication", &object.metadata, labels, refs, notes)
}

pub(crate) fn envoy_filter(object: &Object<networking::EnvoyFilter>, notes: &mut Notes) -> Model {
    let networking::EnvoyFilter { workload_selector, target_refs, config_patches: _, priority: _ } = &object.spec;
    let labels = workload_selector.as_ref().map(|selector| &selector.labels);
    refused("EnvoyFilter", &object.metadata, labels, !target_refs.is_empty(), notes)
}

pub(crate) fn wasm_plugin(object: &Object<extensions::WasmPlugin>, notes: &mut Notes) -> Model {
    let raw = &object.spec;
    let refs = raw.target_ref.is_some() || !raw.target_refs.is_empty();
    let labels = raw.selector.as_ref().map(|selector| &selector.match_labels);
    refused("WasmPlugin", &object.metadata, labels, refs, notes)
}

pub(crate) fn traffic_extension(object: &Object<extensions::TrafficExtension>, notes: &mut Notes) -> Model {
    let raw = &object.spec;
    let labels = raw.selector.as_ref().map(|selector| &selector.match_labels);
    refused("TrafficExtension", &object.metadata, labels, !raw.target_refs.is_empty(), notes)
}

/// The certificate and key of a Secret, and its roots, under the names that Kubernetes or Istio give them; none where there
/// are none. Roots with a list of revoked certificates are left out, because the list is not enforced yet.
pub(crate) fn tls_secret(object: &core::Secret, notes: &mut Notes) -> Option<TlsSecret> {
    let meta = Meta::of("Secret", &object.metadata);
    let mut judge = Judge::new(meta.object, notes);
    let mut read = |name: &str| -> Option<Arc<[u8]>> {
        if let Some(plain) = object.string_data.get(name) {
            return Some(plain.clone().into_bytes().into());
        }
        let raw: String = object.data.get(name)?.split_whitespace().collect();
        let bytes = judge.read(format!("data[{name}]"), base64::engine::general_purpose::STANDARD.decode(raw));
        bytes.map(Into::into)
    };
    let certificate =
        [("tls.crt", "tls.key"), ("cert", "key")].into_iter().find_map(|(chain, key)| read(chain).zip(read(key)));
    let mut roots = ["cacert", "ca.crt"].into_iter().find_map(&mut read);
    let revoked = object.data.contains_key("ca.crl") || object.string_data.contains_key("ca.crl");
    if roots.is_some() && revoked {
        roots = None;
        judge.warn("data[ca.crl]", "not enforced yet: clients are not checked against these roots, and none is let in");
    }
    (certificate.is_some() || roots.is_some()).then_some(TlsSecret { certificate, roots })
}
