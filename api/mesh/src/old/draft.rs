//! A translation being written: today's objects so far, and what is to be said about them.
//!
//! Never here: the rules of one old kind. Called by the translations of each group.

use api::note::{Notes, ObjectRef};
use serde_json::{Map, Value, json};

use super::part::Part;
use crate::{
    model::{Catalog, Labels, Service, TargetPort},
    object::Kind,
};

/// A translation being written.
pub(super) struct Draft<'a> {
    catalog: &'a Catalog,
    object: ObjectRef,
    write: Vec<Value>,
    notes: Notes,
}

/// Workloads that a policy of today selects.
#[derive(Debug, Clone)]
pub(super) struct Workloads {
    /// What to call a policy for them.
    pub(super) name: String,
    /// Their labels; none: all of the namespace.
    pub(super) labels: Option<Labels>,
}

impl Workloads {
    /// A policy's spec, begun with the selector.
    pub(super) fn spec(&self) -> Map<String, Value> {
        let labels = self.labels.iter().map(|labels| ("selector".to_owned(), json!({ "matchLabels": labels })));
        labels.collect()
    }
}

impl<'a> Draft<'a> {
    pub(super) fn new(catalog: &'a Catalog, object: ObjectRef) -> Self {
        Self { catalog, object, write: Vec::new(), notes: Notes::new() }
    }

    pub(super) fn done(self) -> (Vec<Value>, Notes) {
        (self.write, self.notes)
    }

    /// The old object's name.
    pub(super) fn name(&self) -> String {
        self.object.name.clone()
    }

    /// The old object's namespace; the root namespace for what held everywhere.
    pub(super) fn namespace(&self) -> String {
        let root = &self.catalog.settings().root_namespace;
        if self.object.namespace.is_empty() { root.clone() } else { self.object.namespace.clone() }
    }

    /// Whether the old object held for the whole mesh.
    pub(super) fn is_mesh_wide(&self) -> bool {
        self.object.namespace.is_empty()
    }

    /// A host in full.
    pub(super) fn host(&self, name: &str, namespace: &str) -> String {
        format!("{name}.{namespace}.svc.{}", self.catalog.settings().domain)
    }

    /// Writes an object of today, in the old one's namespace.
    pub(super) fn write(&mut self, kind: Kind, name: &str, spec: Value) {
        self.write_in(kind, &self.namespace(), name, spec);
    }

    /// Writes an object of today.
    pub(super) fn write_in(&mut self, kind: Kind, namespace: &str, name: &str, spec: Value) {
        let mut object = json!({
            "apiVersion": kind.api_version(), "kind": kind.name(), "metadata": { "name": name, "namespace": namespace },
        });
        object["spec"] = spec;
        self.write.push(object);
    }

    /// Makes every object written so far only tell what it would do.
    pub(super) fn dry_run(&mut self) {
        for object in &mut self.write {
            object["metadata"]["annotations"] = json!({ "istio.io/dry-run": "true" });
        }
    }

    /// Says something to know.
    pub(super) fn info(&mut self, path: impl Into<String>, text: impl Into<String>) {
        self.notes.add(api::note::Severity::Info, &self.object, path, text);
    }

    /// Says what has no translation.
    pub(super) fn lost(&mut self, path: impl Into<String>, text: impl Into<String>) {
        self.notes.warn(&self.object, path, text);
    }

    /// Says which fields of a part nobody has read.
    pub(super) fn rest(&mut self, part: &Part) {
        for path in part.left() {
            self.lost(path, "has no equal today");
        }
    }

    /// A Kubernetes Service that the mesh knows.
    pub(super) fn service(&self, namespace: &str, name: &str) -> Option<&'a Service> {
        self.catalog.services.get(&ObjectRef::new("Service", namespace, name)).map(|service| &**service)
    }

    /// The Pods behind a Service, for a policy of that name.
    pub(super) fn behind(&mut self, path: &str, namespace: &str, service: &str, name: String) -> Workloads {
        let known = self.service(namespace, service).map(|service| service.selector.clone());
        let labels = known.filter(|labels| !labels.is_empty()).unwrap_or_else(|| {
            let text =
                format!("the mesh knows no Pods of Service {service}: put its selector in place of app: {service}");
            self.info(path, text);
            Labels::from([("app".to_owned(), service.to_owned())])
        });
        Workloads { name, labels: Some(labels) }
    }

    /// The port of the workload behind a service's port, which is written as a number or a name.
    pub(super) fn workload_port(&mut self, path: &str, namespace: &str, service: &str, port: &str) -> Option<u16> {
        let number = port.parse::<u16>().ok();
        let known = self.service(namespace, service).and_then(|service| {
            service.ports.iter().find(|known| Some(known.number) == number || &*known.name == port)
        });
        match (known.map(|known| &known.target), number) {
            (Some(TargetPort::Number(target)), _) => Some(*target),
            (_, Some(number)) => {
                self.info(
                    path,
                    format!("policies name the workload's port: {number} is right where targetPort is the same"),
                );
                Some(number)
            }
            (_, None) => {
                self.lost(path, format!("write the number of the workload's port behind {port}"));
                None
            }
        }
    }
}
