//! The valid form of each kind, and all of them together.
//!
//! An object is parsed once, when it is seen; what is wrong with it becomes notes, what is usable a model.
//! Never here: what one object means for another (that is `mesh`), or for one proxy.
//! Called by pilot's store and webhook and by `meshctl`.

mod authorization;
mod authorization_condition;
pub(crate) mod base;
mod catalog;
mod destination_rule;
mod gateway;
mod guard;
mod http_action;
mod http_rule;
mod mesh_config;
mod rule;
mod service;
mod service_entry;
mod text;
mod virtual_service;
mod workload;

use api::note::Notes;
pub use authorization::AuthorizationPolicy;
use base::Meta;
pub use base::{ExportTo, Labels, Shared};
pub use catalog::{Catalog, Change, ServiceId, Settings};
pub(crate) use http_action::default_retry;
pub use mesh_config::{InboundPolicy, MeshConfig, OutboundPolicy};
pub(crate) use rule::is_every_path;
pub use rule::*;
pub use service::{Protocol, Registry, Resolution, Service, ServicePort, TargetPort};
pub use workload::{Location, Outside, Place, Pod, Slice, SliceEndpoint};

use crate::object::Stored;

/// A workload outside Kubernetes that ServiceEntries can select.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WorkloadEntry {
    /// Name and age.
    pub meta: Meta,
    /// The workload.
    pub outside: Outside,
}

/// The valid form of an object.
#[derive(Debug, Clone, PartialEq)]
pub enum Model {
    /// How requests to hosts are routed.
    VirtualService(VirtualService),
    /// How a service's endpoints are used.
    DestinationRule(DestinationRule),
    /// Ports that gateways open.
    Gateway(Gateway),
    /// Services that are not Kubernetes' own.
    ServiceEntry(ServiceEntry),
    /// A workload outside Kubernetes.
    WorkloadEntry(WorkloadEntry),
    /// Who must prove an identity.
    PeerAuthentication(PeerAuthentication),
    /// Who may call, and what.
    AuthorizationPolicy(AuthorizationPolicy),
    /// Guards something in a way that is not enforced yet: what it selects denies.
    Guard(Guard),
    /// Is of a kind that guards, but guards nothing.
    Unguarded,
    /// A Kubernetes Service.
    Service(Service),
    /// A Pod.
    Pod(Pod),
    /// Where a node is.
    Node(Place),
    /// Endpoints of the service of that name.
    Slice(String, Slice),
    /// Endpoints of the service of the same name, in the old form.
    Endpoints(Vec<Slice>),
    /// A certificate; none where the Secret holds none.
    Secret(Option<TlsSecret>),
    /// Settings of the mesh.
    MeshConfig(Box<MeshConfig>),
    /// Nothing that decides what a proxy is told.
    Nothing,
}

/// Reads an object into its valid form, saying everything that is wrong with it.
///
/// With errors among the notes the object is to be refused. Where it is stored all the same: none means that its last
/// good version stays in force; a model (guards only) takes effect and denies.
pub fn parse(stored: &Stored, settings: &Settings, notes: &mut Notes) -> Option<Model> {
    match stored {
        Stored::VirtualService(raw) => virtual_service::parse(raw, settings, notes).map(Model::VirtualService),
        Stored::DestinationRule(raw) => destination_rule::parse(raw, settings, notes).map(Model::DestinationRule),
        Stored::Gateway(raw) => gateway::parse(raw, notes).map(Model::Gateway),
        Stored::ServiceEntry(raw) => service_entry::parse(raw, settings, notes).map(Model::ServiceEntry),
        Stored::WorkloadEntry(raw) => {
            service_entry::parse_workload_entry(raw, settings, notes).map(Model::WorkloadEntry)
        }
        Stored::PeerAuthentication(raw) => Some(Model::PeerAuthentication(guard::peer_authentication(raw, notes))),
        Stored::AuthorizationPolicy(raw) => Some(authorization::parse(raw, notes)),
        Stored::RequestAuthentication(raw) => Some(guard::request_authentication(raw, notes)),
        Stored::EnvoyFilter(raw) => Some(guard::envoy_filter(raw, notes)),
        Stored::WasmPlugin(raw) => Some(guard::wasm_plugin(raw, notes)),
        Stored::TrafficExtension(raw) => Some(guard::traffic_extension(raw, notes)),
        Stored::Sidecar(_) | Stored::WorkloadGroup(_) | Stored::ProxyConfig(_) | Stored::Telemetry(_) => {
            let object = stored.reference();
            let text = format!("not honoured yet: a {} has no effect", object.kind);
            notes.warn(&object, "", text);
            Some(Model::Nothing)
        }
        Stored::Service(raw) => Some(Model::Service(service::parse(raw, &settings.domain, notes))),
        Stored::Pod(raw) => Some(Model::Pod(Pod::parse(raw, &settings.cluster_id))),
        Stored::Node(raw) => Some(Model::Node(Place::of_node(raw))),
        Stored::EndpointSlice(raw) => Some(match Slice::parse(raw) {
            Some((service, slice)) => Model::Slice(service, slice),
            None => Model::Nothing,
        }),
        Stored::Endpoints(raw) => Some(Model::Endpoints(Slice::parse_old(raw))),
        Stored::Secret(raw) => Some(Model::Secret(guard::tls_secret(raw, notes))),
        Stored::ConfigMap(raw) => {
            let mine =
                raw.metadata.namespace == settings.root_namespace && raw.metadata.name == settings.mesh_config_map;
            if !mine {
                return Some(Model::Nothing);
            }
            mesh_config::parse(raw, notes).map(|model| Model::MeshConfig(Box::new(model)))
        }
        Stored::Namespace(_) => Some(Model::Nothing),
    }
}
