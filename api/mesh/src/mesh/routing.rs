//! All VirtualServices of a mesh, and which of them decides for a host.
//!
//! The most specific host wins; of equals, those only the client's namespace sees come first, then those exported to it,
//! then public ones, each oldest first. They are not merged for sidecars.
//! Never here: their rules (`http_route`). Used by `routes`, `outbound`, `gateway` and `analysis`.

use std::{collections::BTreeMap, sync::Arc};

use api::name::Host;

use crate::model::{Catalog, ClientMatch, ExportTo, GatewayRef, Labels, Shared, VirtualService};

/// All VirtualServices.
#[derive(Debug, Clone, Default)]
pub(crate) struct Routing {
    /// Oldest first.
    all: Vec<Shared<VirtualService>>,
    /// Positions of those for the mesh, by host.
    exact: BTreeMap<String, Vec<usize>>,
    /// Positions of those for the mesh, by wildcard; the longest first.
    wildcards: Vec<(Host, Vec<usize>)>,
    default_export: Vec<String>,
}

impl Routing {
    pub(crate) fn of(catalog: &Catalog) -> Self {
        let mut all: Vec<Shared<VirtualService>> = catalog.virtual_services.values().cloned().collect();
        all.sort_by(|a, b| a.meta.age().cmp(&b.meta.age()));
        let mut exact: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        let mut wildcards: BTreeMap<Host, Vec<usize>> = BTreeMap::new();
        for (at, service) in all.iter().enumerate().filter(|(_, service)| service.serves(&GatewayRef::Mesh)) {
            for host in &service.hosts {
                if host.is_wildcard() {
                    wildcards.entry(host.clone()).or_default().push(at);
                } else {
                    exact.entry(host.as_str().to_owned()).or_default().push(at);
                }
            }
        }
        let mut wildcards: Vec<_> = wildcards.into_iter().collect();
        wildcards.sort_by_key(|(host, _)| std::cmp::Reverse(host.as_str().len()));
        Self { all, exact, wildcards, default_export: catalog.mesh_config.virtual_service_export.clone() }
    }

    /// All of them, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Shared<VirtualService>> {
        self.all.iter()
    }

    /// Whether a namespace sees a VirtualService.
    pub(crate) fn sees(&self, service: &VirtualService, namespace: &str) -> bool {
        ExportTo::allows(service.export_to.as_ref(), &self.default_export, service.meta.namespace(), namespace)
    }

    fn best(&self, candidates: &[usize], namespace: &str) -> Option<&Shared<VirtualService>> {
        let class = |service: &VirtualService| match &service.export_to {
            Some(export) if export.is_private_to(namespace) => 0,
            Some(ExportTo::Namespaces(_)) => 1,
            Some(ExportTo::All) | None => 2,
        };
        candidates
            .iter()
            .filter_map(|at| self.all.get(*at))
            .filter(|service| self.sees(service, namespace))
            .min_by_key(|service| class(service))
    }

    /// The VirtualService that decides for sidecars of a namespace where requests for a host go.
    pub(crate) fn for_host(&self, host: &str, namespace: &str) -> Option<&Shared<VirtualService>> {
        if let Some(found) = self.exact.get(host).and_then(|all| self.best(all, namespace)) {
            return Some(found);
        }
        if self.wildcards.is_empty() {
            return None;
        }
        let host: Host = host.parse().ok()?;
        self.wildcards
            .iter()
            .filter(|(wildcard, _)| wildcard.covers(&host))
            .find_map(|(_, all)| self.best(all, namespace))
    }

    /// The VirtualService that decides for a host of VirtualServices, as it is written there.
    pub(crate) fn named(&self, host: &str, namespace: &str) -> Option<&Shared<VirtualService>> {
        let wildcard = || self.wildcards.iter().find(|(wildcard, _)| wildcard.as_str() == host).map(|(_, all)| all);
        self.best(self.exact.get(host).or_else(wildcard)?, namespace)
    }

    /// The hosts of VirtualServices for sidecars of a namespace, each with the one that decides.
    pub(crate) fn hosts<'r>(
        &'r self,
        namespace: &'r str,
    ) -> impl Iterator<Item = (&'r str, &'r Shared<VirtualService>)> {
        let exact = self.exact.iter().map(|(host, all)| (host.as_str(), all));
        let wildcards = self.wildcards.iter().map(|(host, all)| (host.as_str(), all));
        exact.chain(wildcards).filter_map(move |(host, all)| Some((host, self.best(all, namespace)?)))
    }

    /// Labels that rules ask of clients.
    pub(crate) fn client_selectors(&self) -> impl Iterator<Item = Arc<Labels>> {
        self.all.iter().flat_map(|service| {
            service
                .clients()
                .filter(|client: &&ClientMatch| !client.labels.is_empty())
                .map(|c| Arc::new(c.labels.clone()))
        })
    }
}
