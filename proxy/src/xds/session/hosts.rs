//! Virtual hosts that come by themselves (VHDS), joined with the route tables they belong to.
//!
//! A host is named `TABLE/HOST`; all hosts of a table are asked for by the table's name, as Envoy asks. What serves is the
//! whole table, so nothing behind the session knows how it came.
//! Never here: which tables are wanted. Used by `session`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use api::spec::{HostName, ResourceKind, RouteTable, Spec, VirtualHost};

/// Tables whose hosts stand apart, and those hosts.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    /// Tables as they came.
    tables: BTreeMap<String, Arc<RouteTable>>,
    /// Hosts by table and name.
    hosts: BTreeMap<String, BTreeMap<String, Arc<VirtualHost>>>,
    /// Tables to be joined anew.
    changed: BTreeSet<String>,
}

/// The name under which a resource is asked for.
pub(super) fn asked_as(kind: ResourceKind, name: &str) -> &str {
    match (kind, HostName::read(name)) {
        (ResourceKind::VirtualHost, Some(name)) => name.table,
        _ => name,
    }
}

/// Whether a fault of a table is in one of these hosts.
pub(super) fn told_in(kind: ResourceKind, table: &str, why: &str, hosts: &BTreeSet<String>) -> bool {
    let host = why.strip_prefix("virtual_hosts[").and_then(|rest| rest.split_once(']')).map(|(host, _)| host);
    kind == ResourceKind::Routes && host.is_some_and(|host| hosts.contains(&format!("{table}/{host}")))
}

impl Hosts {
    /// A table has come.
    pub(super) fn table(&mut self, spec: &mut Spec, table: Arc<RouteTable>) {
        let name = table.name.clone();
        if table.hosts_apart {
            self.changed.insert(name.clone());
            self.tables.insert(name, table);
        } else {
            self.tables.remove(&name);
            spec.routes.insert(name, table);
        }
    }

    /// A table has gone; whether it was there.
    pub(super) fn no_table(&mut self, spec: &mut Spec, name: &str) -> bool {
        self.tables.remove(name);
        spec.routes.remove(name).is_some()
    }

    /// A host has come under this name.
    pub(super) fn host(&mut self, name: HostName<'_>, host: Arc<VirtualHost>) {
        self.hosts.entry(name.table.to_owned()).or_default().insert(name.host.to_owned(), host);
        self.changed.insert(name.table.to_owned());
    }

    /// A host has gone, or all hosts of a table; whether there was one.
    pub(super) fn no_host(&mut self, name: &str) -> bool {
        let (table, gone) = match HostName::read(name) {
            None => (name, self.hosts.remove(name).is_some()),
            Some(HostName { table, host }) => {
                (table, self.hosts.get_mut(table).is_some_and(|hosts| hosts.remove(host).is_some()))
            }
        };
        if gone {
            self.changed.insert(table.to_owned());
        }
        gone
    }

    /// The tables whose hosts are to be asked for.
    pub(super) fn wanted(&self) -> BTreeSet<String> {
        self.tables.keys().cloned().collect()
    }

    /// Puts whole tables where something of them has changed.
    pub(super) fn join(&mut self, spec: &mut Spec) {
        for name in std::mem::take(&mut self.changed) {
            if let Some(table) = self.tables.get(&name) {
                let hosts = self.hosts.get(&name).into_iter().flat_map(BTreeMap::values);
                spec.routes.insert(name, Arc::new(table.with_hosts(hosts)));
            }
        }
    }
}
