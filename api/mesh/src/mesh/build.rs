//! Makes one resource from the mesh and its key, and tells the version of what it would make.
//!
//! Both follow the key's recipe; a version covers all that the recipe reads, so that equal versions build equal resources.
//! Never here: the recipes themselves (`cluster`, `outbound`, `inbound`, `routes`, `gateway`). Called by pilot.

use std::sync::Arc;

use api::spec::{Resource, Secret, SecretValue};

use super::{
    Mesh,
    cluster::{self, ClusterInputs},
    gateway, inbound,
    key::{Key, Recipe},
    outbound, routes,
};
use crate::model::{Shared, base::hash_of};

/// Makes the resource of a key; none where it is gone from the mesh.
pub fn build(mesh: &Mesh, key: &Key) -> Option<Resource> {
    let name = key.name().as_ref();
    Some(match &key.recipe {
        Recipe::Fixed(which) => Resource::Cluster(Arc::new(cluster::fixed(mesh, *which))),
        Recipe::Cluster(key) => {
            let inputs = ClusterInputs::of(mesh, key)?;
            Resource::Cluster(Arc::new(cluster::outbound(mesh, key, &inputs, name)?))
        }
        Recipe::InboundCluster(key) => Resource::Cluster(Arc::new(cluster::inbound(mesh, key, name)?)),
        Recipe::Endpoints(key) => {
            let inputs = ClusterInputs::of(mesh, key)?;
            Resource::Endpoints(Arc::new(cluster::endpoints(key, &inputs, name)?))
        }
        Recipe::VirtualOutbound => Resource::Listener(Arc::new(outbound::virtual_outbound(mesh))),
        Recipe::VirtualInbound(key) => Resource::Listener(Arc::new(inbound::virtual_inbound(mesh, key, name))),
        Recipe::WildcardListener(scope, port) => {
            Resource::Listener(Arc::new(outbound::wildcard(mesh, scope, *port, name)))
        }
        Recipe::ServiceListener(scope, id, address, port) => {
            Resource::Listener(Arc::new(outbound::service(mesh, scope, id, *address, *port, name)?))
        }
        Recipe::ApiListener(_, id, port) => Resource::Listener(Arc::new(outbound::api(mesh, id, *port, name)?)),
        Recipe::PortRoutes(scope, port) => Resource::Routes(Arc::new(routes::port_table(mesh, scope, *port, name))),
        Recipe::PortRest(_) => Resource::Routes(Arc::new(routes::rest_table(mesh, name))),
        Recipe::ServiceHost(scope, id, port) => {
            Resource::VirtualHost(Arc::new(routes::service_host(mesh, scope, id, *port)?))
        }
        Recipe::OtherHost(scope, host, port) => {
            Resource::VirtualHost(Arc::new(routes::other_host(mesh, scope, host, *port)?))
        }
        Recipe::ServiceRoutes(scope, id, port) => {
            Resource::Routes(Arc::new(routes::service_table(mesh, scope, id, *port, name)?))
        }
        Recipe::GatewayListener(selection, bind, port) => {
            Resource::Listener(Arc::new(gateway::listener(mesh, selection, *bind, *port, name)?))
        }
        Recipe::GatewayRoutes(selection, table) => {
            Resource::Routes(Arc::new(gateway::table(mesh, selection, table, name)?))
        }
        Recipe::Secret(object) => {
            let (chain, key) = mesh.secrets.get(object)?.certificate.as_ref()?;
            let value = SecretValue::Certificate { chain: chain.to_vec(), key: key.to_vec() };
            Resource::Secret(Arc::new(Secret { name: name.to_owned(), value }))
        }
        Recipe::Roots(object) => {
            let value = SecretValue::Roots(gateway::roots(mesh, object)?.roots.as_ref()?.to_vec());
            Resource::Secret(Arc::new(Secret { name: name.to_owned(), value }))
        }
    })
}

/// Hash of everything that `build` of this key reads.
pub(crate) fn version_of(mesh: &Mesh, key: &Key) -> u64 {
    let content = match &key.recipe {
        Recipe::Fixed(_) | Recipe::VirtualOutbound | Recipe::PortRest(_) => mesh.config.version(),
        Recipe::Cluster(key) => ClusterInputs::of(mesh, key).map_or(0, |inputs| inputs.cluster_version(mesh)),
        Recipe::InboundCluster(key) => cluster::inbound_version(mesh, key),
        Recipe::Endpoints(key) => ClusterInputs::of(mesh, key).map_or(0, |inputs| inputs.endpoints_version(key)),
        Recipe::VirtualInbound(inbound) => inbound::version(mesh, inbound),
        Recipe::WildcardListener(scope, port) => outbound::wildcard_version(mesh, scope, *port),
        Recipe::ServiceListener(scope, id, ..) => outbound::service_version(mesh, scope, id),
        Recipe::ApiListener(_, id, _) => hash_of(&(mesh.services.get(id).map(Shared::version), mesh.config.version())),
        Recipe::PortRoutes(scope, port) => routes::port_version(mesh, scope, *port),
        Recipe::OtherHost(scope, host, _) => routes::other_version(mesh, scope, host),
        Recipe::ServiceHost(scope, id, _) | Recipe::ServiceRoutes(scope, id, _) => {
            routes::service_version(mesh, scope, id)
        }
        Recipe::GatewayListener(selection, ..) | Recipe::GatewayRoutes(selection, _) => {
            gateway::version(mesh, selection)
        }
        Recipe::Secret(object) => mesh.secrets.get(object).map_or(0, Shared::version),
        Recipe::Roots(object) => gateway::roots(mesh, object).map_or(0, Shared::version),
    };
    hash_of(&(key, content))
}
