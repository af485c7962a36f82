//! A listener and its filter chains, compiled.
//!
//! A chain holds its authorization compiled, its route table or clusters resolved. It is taken over from the table before
//! as long as it and what it leads to stay the same.
//! Never here: sockets. Built by `table`.

use std::sync::Arc;

use super::{ClusterId, Map, Routes, chains::Arrival, chains::Chains, compile_routes, resource, rule::Targets};
use crate::{
    authz::{Carried, Policies},
    note::Notes,
    spec::{self, Authorization, Detect, FilterChain, Network, RoutesRef},
};

/// A listener, compiled.
#[derive(Debug)]
pub struct Listener {
    /// What it was made from.
    pub spec: Arc<spec::Listener>,
    index: Chains,
    chains: Box<[Arc<Chain>]>,
    default: Option<Arc<Chain>>,
}

/// A filter chain, compiled.
#[derive(Debug)]
pub struct Chain {
    listener: Arc<spec::Listener>,
    /// Place in the listener; none: its default.
    at: Option<usize>,
    /// What is checked before anything is sent on; chains with the same layers share it.
    pub authorization: Arc<Policies>,
    /// What it does.
    pub work: Work,
}

/// What a chain does with a connection.
#[derive(Debug)]
pub enum Work {
    /// Reads requests and routes them; none: the route table has not come, and requests are answered 404.
    Http(Option<Arc<Routes>>),
    /// Passes bytes on.
    Tcp(Targets),
}

impl Chain {
    /// What it was made from.
    #[expect(clippy::indexing_slicing, clippy::expect_used, reason = "a chain is made from this very place")]
    pub fn spec(&self) -> &FilterChain {
        match self.at {
            Some(at) => &self.listener.chains[at],
            None => self.listener.default_chain.as_ref().expect("the default chain it was made from"),
        }
    }

    /// Its name within the listener.
    pub fn name(&self) -> &str {
        &self.spec().name
    }

    /// The listener it belongs to.
    pub fn listener(&self) -> &Arc<spec::Listener> {
        &self.listener
    }

    /// Name of the listener it belongs to.
    pub fn listener_name(&self) -> &str {
        &self.listener.name
    }

    /// How it reads requests; none on TCP.
    pub fn http(&self) -> Option<&spec::HttpServer> {
        match &self.spec().network {
            Network::Http(server) => Some(server),
            Network::Tcp(_) => None,
        }
    }

    /// How it passes bytes on; none on HTTP.
    pub fn tcp(&self) -> Option<&spec::TcpServer> {
        match &self.spec().network {
            Network::Tcp(server) => Some(server),
            Network::Http(_) => None,
        }
    }

    /// The compiled routes of a chain that reads requests.
    pub fn routes(&self) -> Option<&Arc<Routes>> {
        match &self.work {
            Work::Http(routes) => routes.as_ref(),
            Work::Tcp(_) => None,
        }
    }
}

impl Listener {
    pub(super) fn compile(
        spec: &Arc<spec::Listener>,
        previous: Option<&Arc<Self>>,
        find: &impl Fn(&str) -> Option<ClusterId>,
        routes: &dyn Fn(&str) -> Option<Arc<Routes>>,
        notes: &mut Notes,
    ) -> Arc<Self> {
        let same_spec = previous.filter(|old| Arc::ptr_eq(&old.spec, spec) || old.spec == *spec);
        let spec = same_spec.map_or(spec, |old| &old.spec);
        let mut changed = same_spec.is_none();
        let mut compiled = Compiled::take(previous);
        let mut compile = |at: Option<usize>, chain, old: Option<&Arc<Chain>>, notes: &mut Notes| {
            let work = compile_work(spec, chain, old.map(|old| &old.work), find, routes, notes);
            match old.filter(|old| same_spec.is_some() && same_work(&old.work, &work)) {
                Some(old) => Arc::clone(old),
                None => {
                    changed = true;
                    let authorization = compiled.of(chain);
                    Arc::new(Chain { listener: Arc::clone(spec), at, authorization, work })
                }
            }
        };
        let old: Map<&Arc<Chain>> = previous
            .into_iter()
            .flat_map(|old| old.chains.iter().chain(&old.default))
            .map(|chain| (chain.name().into(), chain))
            .collect();
        let chains: Box<[Arc<Chain>]> = spec
            .chains
            .iter()
            .enumerate()
            .map(|(at, chain)| compile(Some(at), chain, old.get(chain.name.as_str()).copied(), notes))
            .collect();
        let default =
            spec.default_chain.as_ref().map(|chain| compile(None, chain, old.get(chain.name.as_str()).copied(), notes));
        if let Some(old) = previous.filter(|_| !changed) {
            return Arc::clone(old);
        }
        let object = resource("Listener", &spec.name);
        let index = Chains::build(spec.chains.iter().map(|chain| &chain.matches), |at| {
            let name = spec.chains.get(at as usize).map_or("", |chain| &chain.name);
            notes.warn(
                &object,
                format!("filter_chains[{name}]"),
                "an earlier chain takes the same connections already",
            );
        });
        Arc::new(Self { spec: Arc::clone(spec), index, chains, default })
    }

    /// The chain that serves a connection; none: the connection is closed.
    pub(crate) fn find(&self, arrival: &Arrival<'_>) -> Option<&Arc<Chain>> {
        self.index.find(arrival).and_then(|at| self.chains.get(at as usize)).or(self.default.as_ref())
    }

    /// What must be found out from the first bytes of a connection to this destination: of what it looks for, only that
    /// on which the choice of a chain depends. Where nothing does, a server that speaks first is not kept waiting.
    pub fn detect(&self, destination: std::net::SocketAddr) -> Detect {
        let (tls, http) = self.index.depends(destination);
        let said = self.spec.detect;
        Detect { tls: said.tls && tls, http: said.http && http, ..said }
    }

    /// Its chains in order, the default last.
    pub fn chains(&self) -> impl Iterator<Item = &Arc<Chain>> {
        self.chains.iter().chain(&self.default)
    }

    /// The chain of a name.
    pub fn chain_named(&self, name: &str) -> Option<&Arc<Chain>> {
        self.chains().find(|chain| chain.name() == name)
    }
}

/// The layers of a chain as they were given, and whether they are read for requests or bytes.
fn layers(chain: &FilterChain) -> (&[Authorization], Carried) {
    match &chain.network {
        Network::Http(server) => (&server.authorization, Carried::Http),
        Network::Tcp(server) => (&server.authorization, Carried::Tcp),
    }
}

/// Layers that are compiled already: most chains of a listener have the same, and most changes do not touch them.
struct Compiled<'s>(Vec<(&'s [Authorization], Carried, Arc<Policies>)>);

impl<'s> Compiled<'s> {
    fn take(previous: Option<&'s Arc<Listener>>) -> Self {
        let mut known = Self(Vec::new());
        for chain in previous.into_iter().flat_map(|old| old.chains()) {
            if !known.0.iter().any(|(_, _, policies)| Arc::ptr_eq(policies, &chain.authorization)) {
                let (given, carried) = layers(chain.spec());
                known.0.push((given, carried, Arc::clone(&chain.authorization)));
            }
        }
        known
    }

    fn of(&mut self, chain: &'s FilterChain) -> Arc<Policies> {
        let (given, carried) = layers(chain);
        let same = |(known, way, _): &&(&[Authorization], Carried, _)| *known == given && *way == carried;
        if let Some((_, _, policies)) = self.0.iter().find(same) {
            return Arc::clone(policies);
        }
        let policies = Arc::new(Policies::compile(given, carried));
        self.0.push((given, carried, Arc::clone(&policies)));
        policies
    }
}

fn compile_work(
    listener: &spec::Listener,
    chain: &FilterChain,
    old: Option<&Work>,
    find: &impl Fn(&str) -> Option<ClusterId>,
    routes: &dyn Fn(&str) -> Option<Arc<Routes>>,
    notes: &mut Notes,
) -> Work {
    match &chain.network {
        Network::Http(server) => match &server.routes {
            RoutesRef::Named(name) => Work::Http(routes(name)),
            RoutesRef::Inline(table) => {
                let old = match old {
                    Some(Work::Http(old)) => old.as_ref(),
                    Some(Work::Tcp(_)) | None => None,
                };
                Work::Http(Some(compile_routes(table, old, find, notes)))
            }
        },
        Network::Tcp(server) => {
            let object = resource("Listener", &listener.name);
            let path = format!("filter_chains[{}]", chain.name);
            let mut find = |name: &str| find(name);
            Work::Tcp(Targets::compile(&server.clusters, &mut find, &mut |text| {
                notes.error(&object, path.clone(), text);
            }))
        }
    }
}

fn same_work(old: &Work, new: &Work) -> bool {
    match (old, new) {
        (Work::Http(None), Work::Http(None)) => true,
        (Work::Http(Some(old)), Work::Http(Some(new))) => Arc::ptr_eq(old, new),
        (Work::Tcp(old), Work::Tcp(new)) => {
            old.iter().map(|target| target.cluster).eq(new.iter().map(|target| target.cluster))
        }
        (Work::Http(_), Work::Tcp(_) | Work::Http(_)) | (Work::Tcp(_), Work::Http(_)) => false,
    }
}
