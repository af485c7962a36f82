//! Keeps the packet filter, the names and the relays in step with the stored Services.
//!
//! One task: watches, waits a moment for what belongs together, applies the difference. Never here: what a rule says.
//! Run by `node`; tells Pods' addresses by [`Network::pods`].

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Patch, PatchParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::names::Names;
use super::relay::{self, Relays, Wanted};
use super::rules::{self, Rules, Transport};
use super::view::{self, Entry, Kind, Objects};
use crate::event::Events;
use crate::link::{Link, LinkError};

/// Changes that come together are applied together.
const GATHER: Duration = Duration::from_millis(5);
const FIELD_MANAGER: &str = "sandbox-network";

/// The network's inputs and outputs.
pub(crate) struct Network {
    pub(crate) link: Link,
    pub(crate) client: Client,
    pub(crate) events: Events,
    /// The sandbox's name: LoadBalancer addresses depend on it.
    pub(crate) name: String,
    pub(crate) names: watch::Sender<Arc<Names>>,
    pub(crate) services: watch::Sender<Arc<Vec<Entry>>>,
    /// Addresses of living Pods.
    pub(crate) pods: watch::Receiver<BTreeSet<Ipv4Addr>>,
}

enum Change {
    Service(Box<Event<Service>>),
    Slice(Box<Event<EndpointSlice>>),
}

fn watch_all<K>(client: &Client) -> impl Stream<Item = Event<K>> + Send + use<K>
where
    K: kube::Resource<DynamicType = ()> + Clone + serde::de::DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    watcher::watcher(Api::<K>::all(client.clone()), watcher::Config::default()).default_backoff().filter_map(
        |event| async {
            event.inspect_err(|error| tracing::warn!(%error, kind = std::any::type_name::<K>(), "watch")).ok()
        },
    )
}

impl Network {
    /// Runs until told to stop.
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<(), LinkError> {
        self.link.run(&["nft", "-f", "-"], rules::base().as_bytes()).await?;
        let services = watch_all::<Service>(&self.client).map(|event| Change::Service(Box::new(event)));
        let slices = watch_all::<EndpointSlice>(&self.client).map(|event| Change::Slice(Box::new(event)));
        let mut changes = std::pin::pin!(futures::stream::select(services, slices));
        let mut objects = Objects::default();
        let mut keeping = Keeping {
            rules: Rules::default(),
            relays: Relays::new(self.link.clone()),
            routes: BTreeSet::new(),
            network: &self,
        };
        let mut pods = self.pods.clone();
        let mut listed = (false, false);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                changed = pods.changed() => if changed.is_err() { return Ok(()) },
                Some(change) = changes.next() => take(&mut objects, change, &mut listed),
            }
            let deadline = tokio::time::Instant::now() + GATHER;
            loop {
                tokio::select! {
                    () = tokio::time::sleep_until(deadline) => break,
                    Some(change) = changes.next() => take(&mut objects, change, &mut listed),
                }
            }
            if listed == (true, true) {
                let entries = objects.entries();
                let pods = pods.borrow_and_update().clone();
                keeping.apply(&entries, &pods).await?;
            }
        }
    }
}

fn take(objects: &mut Objects, change: Change, listed: &mut (bool, bool)) {
    match change {
        Change::Service(event) => match *event {
            Event::Init => {
                listed.0 = false;
                objects.clear_services();
            }
            Event::Apply(service) | Event::InitApply(service) => objects.put_service(service),
            Event::Delete(service) => objects.drop_service(&service),
            Event::InitDone => listed.0 = true,
        },
        Change::Slice(event) => match *event {
            Event::Init => {
                listed.1 = false;
                objects.clear_slices();
            }
            Event::Apply(slice) | Event::InitApply(slice) => objects.put_slice(slice),
            Event::Delete(slice) => objects.drop_slice(&slice),
            Event::InitDone => listed.1 = true,
        },
    }
}

/// What is in force.
struct Keeping<'a> {
    rules: Rules,
    relays: Relays,
    routes: BTreeSet<Ipv4Addr>,
    network: &'a Network,
}

impl Keeping<'_> {
    async fn apply(&mut self, entries: &[Entry], pods: &BTreeSet<Ipv4Addr>) -> Result<(), LinkError> {
        let wanted = view::rules(entries, pods);
        if let Err(error) = self.filter(&wanted).await {
            tracing::error!(%error, "nft refused a change; all rules are made anew");
            self.anew().await?;
            if let Err(error) = self.filter(&wanted).await {
                tracing::error!(%error, "nft refuses the rules as a whole; Services do not work until they change");
            }
        }
        self.network.names.send_replace(Arc::new(Names::new(entries)));
        self.network.services.send_replace(Arc::new(entries.to_vec()));
        self.route(entries).await;
        let wanted = self.balance(entries).await;
        for refused in self.relays.set(&wanted).await {
            self.report(entries, &wanted, &refused).await;
        }
        Ok(())
    }

    /// Brings the packet filter from what is in force to what is wanted.
    async fn filter(&mut self, wanted: &Rules) -> Result<(), LinkError> {
        let (transactions, after) = self.rules.change(wanted);
        for text in &transactions {
            self.network.link.run(&["nft", "-f", "-"], text.as_bytes()).await?;
        }
        self.rules = after;
        Ok(())
    }

    /// Drops every rule.
    async fn anew(&mut self) -> Result<(), LinkError> {
        self.network.link.run(&["nft", "delete", "table", "ip", "ferromesh"], b"").await?;
        self.network.link.run(&["nft", "-f", "-"], rules::base().as_bytes()).await?;
        self.rules = Rules::default();
        Ok(())
    }

    async fn route(&mut self, entries: &[Entry]) {
        let wanted: BTreeSet<Ipv4Addr> = entries
            .iter()
            .flat_map(|entry| entry.external.iter().copied())
            .filter(|address| !address.is_loopback())
            .collect();
        let gone = self.routes.difference(&wanted).map(|address| (*address, false));
        let new = wanted.difference(&self.routes).map(|address| (*address, true));
        for (address, present) in gone.chain(new) {
            let request = crate::keeper::wire::Request::Route { address, present };
            if let Err(error) = self.network.link.ask(request, Vec::new()).await {
                tracing::warn!(%address, %error, "route of an external address");
            }
        }
        self.routes = wanted;
    }

    /// Gives LoadBalancers their addresses; says what is to be relayed.
    async fn balance(&self, entries: &[Entry]) -> Wanted {
        let mut wanted = Wanted::new();
        let kept =
            |entry: &Entry| entry.balancer_address.filter(|address| entry.load_balancer && address.is_loopback());
        let mut taken: BTreeSet<Ipv4Addr> = entries.iter().filter_map(kept).collect();
        for entry in entries {
            let own = match entry.kind {
                Kind::Address(address) => address,
                Kind::Headless | Kind::External(_) => continue,
            };
            let balancer = if entry.load_balancer {
                kept(entry).or_else(|| {
                    let name = format!("{}/{}", entry.key.0, entry.key.1);
                    let address = relay::balancer_address(&self.network.name, &name, &taken)?;
                    taken.insert(address);
                    Some(address)
                })
            } else {
                None
            };
            if balancer != entry.balancer_address {
                self.tell(entry, balancer).await;
            }
            for port in entry.ports.iter().filter(|port| port.transport == Transport::Tcp) {
                let to = SocketAddrV4::new(own, port.number);
                if let Some(address) = balancer {
                    wanted.insert(SocketAddrV4::new(address, port.number), to);
                }
                if let Some(number) = port.node_port {
                    wanted.insert(SocketAddrV4::new(Ipv4Addr::LOCALHOST, number), to);
                }
            }
        }
        wanted
    }

    async fn tell(&self, entry: &Entry, address: Option<Ipv4Addr>) {
        let services: Api<Service> = Api::namespaced(self.network.client.clone(), &entry.key.0);
        let ingress = address.map(|address| json!([{"ip": address.to_string(), "ipMode": "VIP"}]));
        let patch = json!({"status": {"loadBalancer": {"ingress": ingress}}});
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        if let Err(error) = services.patch_status(&entry.key.1, &params, &Patch::Merge(patch)).await {
            tracing::warn!(service = entry.key.1, %error, "status of a LoadBalancer");
        }
    }

    async fn report(&self, entries: &[Entry], wanted: &Wanted, refused: &relay::HostRefused) {
        let at = refused.at;
        let found = wanted.get(&at).and_then(|to| {
            let entry = entries.iter().find(|entry| entry.kind == Kind::Address(*to.ip()))?;
            Some((entry, entry.ports.iter().find(|port| port.number == to.port())?))
        });
        let Some((entry, port)) = found else {
            tracing::info!(%at, error = %refused.error, "the host does not let us listen");
            return;
        };
        let instead = port.node_port.filter(|number| *number != at.port());
        let text = match instead {
            Some(number) => format!(
                "This user may not listen on {at} outside the sandbox ({}): there, use 127.0.0.1:{number}; inside \
                 `meshctl shell` {at} answers",
                refused.error
            ),
            None => format!("Nothing listens on {at} outside the sandbox: {}", refused.error),
        };
        tracing::info!(%at, service = entry.key.1, text, "the host does not let us listen");
        self.network.events.service(&entry.key, "PortNotOnHost", &text).await;
    }
}
