//! One cluster as the proxy uses it: endpoints with their live state, TLS, labels.
//!
//! Never here: the choice itself (`api::balance`). Built by `table`; asked by `http::attempt` and `tcp`.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use api::{
    balance::{Choice, Layout, State, Usable, pick},
    spec::{self, Address, Balance, Discovery, Health, Locality, UpstreamTls, UpstreamVersion},
};
use hashbrown::HashSet;
use http::Version;

use super::{Builder, Resolved};
use crate::{
    access::Downstream,
    metrics::{Party, PartyId, Service, ServiceId},
    proxy_header::Ends,
    upstream::{
        connect::Options,
        live::{LiveCluster, LiveEndpoint, Place},
        tls::{Carries, Tls},
    },
    worker::Worker,
};

/// One endpoint of a cluster, in this table.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) live: Arc<LiveEndpoint>,
    pub(crate) health: Health,
    /// Takes the mesh's mTLS.
    pub(crate) mtls: bool,
    pub(crate) party: PartyId,
    pub(crate) weight: u32,
}

impl Member {
    fn build(endpoint: &spec::Endpoint, tls: &UpstreamTls, live: &LiveCluster, builder: &Builder) -> Self {
        let spec::Endpoint { address, weight, health, mtls, workload } = endpoint;
        let place = match address {
            Address::Socket(address) => Place::Socket(*address),
            Address::Unix(path) => Place::Unix(path.as_str().into()),
            // Left over only where a name has no address: `expand` has taken the others out.
            Address::Name(name, port) => Place::Unix(format!("{name}:{port}").into()),
        };
        let secured = matches!(tls, UpstreamTls::On(_)) || *mtls;
        let party = workload.as_ref().map_or(PartyId::default(), |workload| {
            builder.metrics.party(&Party::of(workload, if secured { principal(tls) } else { "" }))
        });
        Self { live: live.endpoint(&place), health: *health, mtls: *mtls, party, weight: *weight }
    }
}

/// Who serves a cluster of the mesh: where exactly one identity may, it is the one that does; else empty.
fn principal(tls: &UpstreamTls) -> &str {
    match tls {
        UpstreamTls::Auto(client) | UpstreamTls::On(client) if client.mesh => {
            match client.subject_alt_names.as_slice() {
                [one] => one.strip_prefix("spiffe://").unwrap_or_default(),
                _ => "",
            }
        }
        UpstreamTls::Off | UpstreamTls::Auto(_) | UpstreamTls::On(_) => "",
    }
}

impl State for Member {
    fn usable(&self) -> Usable {
        Usable::of(self.health, self.live.ejected.load(Relaxed))
    }

    fn busy(&self) -> u32 {
        self.live.busy.load(Relaxed)
    }
}

/// TLS of a cluster, where it has any.
#[derive(Debug)]
enum Protection {
    Off,
    /// Only to endpoints that take it.
    Auto(Arc<Tls>),
    On(Arc<Tls>),
    /// It must be, and cannot: nothing is sent.
    Broken,
}

impl Protection {
    /// Sets it up; `kept`: what goes on. Gives also why it cannot be, if so.
    fn build(tls: &UpstreamTls, kept: Option<&Arc<Tls>>, builder: &Builder) -> (Self, Option<String>) {
        let (UpstreamTls::Auto(client) | UpstreamTls::On(client)) = tls else { return (Self::Off, None) };
        let made = || Tls::build(client, &builder.identity, &builder.secrets).map(Arc::new);
        match kept.map_or_else(made, |tls| Ok(Arc::clone(tls))) {
            Ok(settings) if matches!(tls, UpstreamTls::Auto(_)) => (Self::Auto(settings), None),
            Ok(settings) => (Self::On(settings), None),
            Err(error) => (Self::Broken, Some(error.to_string())),
        }
    }

    fn settings(&self) -> Option<&Arc<Tls>> {
        match self {
            Self::Auto(tls) | Self::On(tls) => Some(tls),
            Self::Off | Self::Broken => None,
        }
    }
}

/// One cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) name: Arc<str>,
    pub(crate) spec: Arc<spec::Cluster>,
    compiled: Arc<api::table::Cluster>,
    pub(crate) live: Arc<LiveCluster>,
    pub(crate) members: Box<[Member]>,
    layout: Layout,
    protection: Protection,
    options: Options,
    pub(crate) service: ServiceId,
    /// What the names among its endpoints resolved to.
    resolved: Vec<(String, Vec<IpAddr>)>,
}

/// A chosen endpoint.
#[derive(Debug, Clone)]
pub(crate) struct Chosen {
    pub(crate) endpoint: Arc<LiveEndpoint>,
    pub(crate) mtls: bool,
    pub(crate) party: PartyId,
}

/// What a request needs of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    Http2,
    Http1,
    /// HTTP/1, and nobody else on it: it may change its protocol.
    Alone,
}

impl Needs {
    /// What the cluster says of a request that came in this version.
    pub(crate) fn of(cluster: &Cluster, came: Version) -> Self {
        match cluster.spec.http.version {
            UpstreamVersion::Http2 => Self::Http2,
            UpstreamVersion::Downstream if came == Version::HTTP_2 => Self::Http2,
            UpstreamVersion::Http1 | UpstreamVersion::Downstream => Self::Http1,
        }
    }
}

/// Names among the endpoints of clusters.
pub(crate) fn names(localities: &[Locality]) -> impl Iterator<Item = &str> {
    localities.iter().flat_map(|place| &place.endpoints).filter_map(|endpoint| match &endpoint.address {
        Address::Name(name, _) => Some(name.as_str()),
        Address::Socket(_) | Address::Unix(_) => None,
    })
}

/// Puts addresses in the place of names; `first_only`: one for each name (logical DNS).
fn expand(localities: &[Locality], resolved: &Resolved, first_only: bool) -> Vec<Locality> {
    let one = |endpoint: &spec::Endpoint| -> Vec<spec::Endpoint> {
        let Address::Name(name, port) = &endpoint.address else { return vec![endpoint.clone()] };
        let addresses = resolved.get(name).map(Vec::as_slice).unwrap_or_default();
        let most = if first_only { 1 } else { usize::MAX };
        let at = |ip: &IpAddr| Address::Socket(SocketAddr::new(*ip, *port));
        addresses.iter().take(most).map(|ip| spec::Endpoint { address: at(ip), ..endpoint.clone() }).collect()
    };
    localities
        .iter()
        .map(|place| Locality { endpoints: place.endpoints.iter().flat_map(one).collect(), ..place.clone() })
        .collect()
}

impl Cluster {
    /// Builds a cluster; gives also why it cannot be used, if so. `before`: the one in the table that is replaced, whose
    /// TLS goes on where nothing is said otherwise: its connections are of use, and sessions are resumed.
    pub(super) fn build(
        compiled: &Arc<api::table::Cluster>,
        resolved: &Resolved,
        builder: &Builder,
        before: Option<&Self>,
    ) -> (Self, Option<String>) {
        let spec = Arc::clone(&compiled.spec);
        let live = builder.live.cluster(&spec.name);
        let used: Vec<(String, Vec<IpAddr>)> = names(compiled.localities())
            .map(|name| (name.to_owned(), resolved.get(name).cloned().unwrap_or_default()))
            .collect();
        let expanded;
        let (localities, layout): (&[Locality], Layout) = if used.is_empty() {
            (compiled.localities(), compiled.layout.clone())
        } else {
            let first_only = matches!(spec.discovery, Discovery::LogicalDns { .. });
            expanded = expand(compiled.localities(), resolved, first_only);
            let layout = Layout::of(&expanded);
            (&expanded, layout)
        };
        let same = |before: &&Self| before.spec.name == spec.name && before.spec.tls == spec.tls;
        let kept = before.filter(same).and_then(|before| before.protection.settings());
        let (protection, fault) = Protection::build(&spec.tls, kept, builder);
        let endpoints = localities.iter().flat_map(|place| &place.endpoints);
        let members = endpoints.map(|endpoint| Member::build(endpoint, &spec.tls, &live, builder)).collect();
        let service = match &spec.service {
            Some(service) => {
                Service { host: service.host.clone(), name: service.name.clone(), namespace: service.namespace.clone() }
            }
            None => Service { name: spec.name.clone(), ..Service::default() },
        };
        let options =
            Options { timeout: spec.connect_timeout, bind: spec.bind_source, keepalive: spec.keepalive, header: None };
        let cluster = Self {
            name: spec.name.as_str().into(),
            compiled: Arc::clone(compiled),
            live,
            members,
            layout,
            protection,
            options,
            service: builder.metrics.service(&service),
            resolved: used,
            spec,
        };
        (cluster, fault)
    }

    /// Whether it is what building it again would give.
    pub(super) fn still(&self, compiled: &Arc<api::table::Cluster>, resolved: &Resolved) -> bool {
        Arc::ptr_eq(&self.compiled, compiled)
            && !matches!(self.protection, Protection::Broken)
            && self.resolved.iter().all(|(name, old)| resolved.get(name).map_or(old.is_empty(), |new| new == old))
    }

    /// Forgets the state of endpoints that are no longer among its members.
    pub(super) fn forget_others(&self) {
        if self.spec.discovery == Discovery::OriginalDestination {
            return;
        }
        let named: HashSet<&Place> = self.members.iter().map(|member| &member.live.place).collect();
        self.live.keep_only(|place| named.contains(place));
    }

    /// Chooses an endpoint; `tried` names those that have failed this request.
    pub(crate) fn choose(&self, worker: &Worker, original: SocketAddr, tried: &[u64]) -> Option<Chosen> {
        if self.spec.discovery == Discovery::OriginalDestination || self.spec.balance == Balance::OriginalDestination {
            return Some(Chosen { endpoint: self.live.original(original), mtls: false, party: PartyId::default() });
        }
        let choice = Choice {
            balance: self.spec.balance,
            panic_below_percent: self.spec.outlier.as_ref().map_or(0, |outlier| outlier.min_health_percent),
            cursor: self.live.cursor.fetch_add(1, Relaxed),
            roll: worker.roll(),
        };
        let avoid = |at: usize| {
            self.members.get(at).is_some_and(|member| {
                tried.contains(&member.live.id) || member.live.is_quarantined(|| worker.shared.now_ms())
            })
        };
        let at = pick(&self.layout, &self.members, choice, avoid)?;
        let member = self.members.get(at)?;
        Some(Chosen { endpoint: Arc::clone(&member.live), mtls: member.mtls, party: member.party })
    }

    /// How a connection on behalf of this client is made.
    pub(crate) fn options(&self, downstream: &Downstream) -> Options {
        let ends = Ends { from: downstream.remote, to: downstream.local };
        Options { header: self.spec.proxy_header.map(|version| (version, ends)), ..self.options }
    }

    /// TLS towards an endpoint.
    ///
    /// # Errors
    /// It must be protected, and cannot.
    pub(crate) fn tls(&self, mtls: bool) -> Result<Option<&Arc<Tls>>, Broken> {
        match &self.protection {
            Protection::Off => Ok(None),
            Protection::Auto(tls) => Ok(mtls.then_some(tls)),
            Protection::On(tls) => Ok(Some(tls)),
            Protection::Broken => Err(Broken),
        }
    }

    /// What a connection for a request carries. Where connections are counted or wear out, one stands for one request at a
    /// time, as users know it: nothing rides there.
    pub(crate) fn carries(&self, tls: Option<&Arc<Tls>>, needs: Needs) -> Carries {
        let spec = &self.spec;
        let free = spec.breakers.connections == u32::MAX && spec.http.max_requests_per_connection == 0;
        match (needs, tls) {
            (Needs::Http2, _) => Carries::Http2,
            (Needs::Http1, Some(tls)) if tls.rides() && free => Carries::Ridden,
            (Needs::Http1 | Needs::Alone, _) => Carries::Http1,
        }
    }

    /// Whether its connections are the mesh's own mTLS, where they are TLS.
    pub(crate) fn is_mesh(&self) -> bool {
        match &self.spec.tls {
            UpstreamTls::Off => false,
            UpstreamTls::Auto(client) | UpstreamTls::On(client) => client.mesh,
        }
    }
}

/// A cluster whose TLS cannot be set up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Broken;
