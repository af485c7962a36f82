//! All services of a mesh, by host and by port, and which of them a namespace sees.
//!
//! The same host may be declared in several namespaces: one's own comes first, then Kubernetes', then the oldest.
//! Never here: addresses of endpoints, rules. Used by everything else in `mesh`.

use std::{collections::BTreeMap, sync::Arc};

use crate::model::{Catalog, ExportTo, Registry, Service, ServiceId, Shared};

/// All services.
#[derive(Debug, Clone, Default)]
pub(crate) struct Services {
    by_host: BTreeMap<Arc<str>, Vec<Shared<Service>>>,
    by_port: BTreeMap<u16, Vec<Shared<Service>>>,
    default_export: Vec<String>,
}

impl Services {
    pub(crate) fn of(catalog: &Catalog) -> Self {
        let mut all = Self { default_export: catalog.mesh_config.service_export.clone(), ..Self::default() };
        let entries = catalog.service_entries.values().flat_map(|entry| &entry.services);
        for service in catalog.services.values().chain(entries) {
            all.by_host.entry(Arc::clone(&service.id.host)).or_default().push(service.clone());
        }
        for services in all.by_host.values_mut() {
            services.sort_by(|a, b| rank(a).cmp(&rank(b)));
            // one namespace may declare a host once; the best ranked declaration stands
            let mut seen: Vec<Arc<str>> = Vec::new();
            services.retain(|service| {
                let new = !seen.contains(&service.id.namespace);
                seen.push(Arc::clone(&service.id.namespace));
                new
            });
        }
        for service in all.by_host.values().flatten() {
            for port in &service.ports {
                all.by_port.entry(port.number).or_default().push(service.clone());
            }
        }
        all
    }

    /// Every service, in order of host.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Shared<Service>> {
        self.by_host.values().flatten()
    }

    /// The service of that host and namespace.
    pub(crate) fn get(&self, id: &ServiceId) -> Option<&Shared<Service>> {
        self.by_host.get(&id.host)?.iter().find(|service| service.id.namespace == id.namespace)
    }

    /// Whether a namespace sees a service.
    pub(crate) fn sees(&self, service: &Service, namespace: &str) -> bool {
        ExportTo::allows(service.export_to.as_ref(), &self.default_export, &service.id.namespace, namespace)
    }

    /// The service that a host means in a namespace.
    pub(crate) fn find(&self, host: &str, namespace: &str) -> Option<&Shared<Service>> {
        let services = self.by_host.get(host)?;
        let mut visible = services.iter().filter(|service| self.sees(service, namespace));
        let first = visible.next()?;
        if &*first.id.namespace == namespace {
            return Some(first);
        }
        Some(visible.find(|service| &*service.id.namespace == namespace).unwrap_or(first))
    }

    /// Whether a host means a service in every namespace.
    pub(crate) fn seen_by_all(&self, host: &str) -> bool {
        // no namespace has this name
        self.by_host.get(host).is_some_and(|all| all.iter().any(|service| self.sees(service, "*")))
    }

    /// Whether any namespace declares the host.
    pub(crate) fn declares(&self, host: &str) -> bool {
        self.by_host.contains_key(host)
    }

    /// All hosts.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = &Arc<str>> {
        self.by_host.keys()
    }

    /// The services that a namespace sees: for each host the one that it means there.
    pub(crate) fn visible<'s>(&'s self, namespace: &'s str) -> impl Iterator<Item = &'s Shared<Service>> {
        self.by_host.keys().filter_map(move |host| self.find(host, namespace))
    }

    /// Every port that a service has.
    pub(crate) fn ports(&self) -> impl Iterator<Item = u16> + '_ {
        self.by_port.keys().copied()
    }

    /// The services with that port that a namespace sees.
    pub(crate) fn on_port<'s>(&'s self, port: u16, namespace: &'s str) -> impl Iterator<Item = &'s Shared<Service>> {
        self.by_port.get(&port).into_iter().flatten().filter(move |service| {
            self.find(&service.id.host, namespace).is_some_and(|found| found.id.namespace == service.id.namespace)
        })
    }
}

fn rank(service: &Service) -> (Registry, (i64, &str, &str)) {
    (service.registry, service.meta.age())
}
