//! Conversations by table: what a client says, and what it is told, in order.
//!
//! `hear("CDS +a -b")` is a request, `says()` everything that is then due, for example `CDS a@1 b@2 -c`.
//! Never here: bytes or streams; `serve` is tested over a transport of its own.

use std::time::Duration;

use bytes::Bytes;

use super::*;

const CDS: ResourceKind = ResourceKind::Cluster;
const EDS: ResourceKind = ResourceKind::Endpoints;

#[derive(Default)]
struct World {
    now: BTreeMap<(ResourceKind, Arc<str>), u64>,
    before: BTreeMap<(ResourceKind, Arc<str>), u64>,
}

fn encoded(name: &str, version: u64) -> Arc<Encoded> {
    let text = Bytes::from(format!("{name}@{version}"));
    let version = NonZeroU64::new(version).unwrap();
    Arc::new(Encoded { version, frame: Frame { delta: text.clone(), any: text } })
}

impl Offer for World {
    fn edition(&self) -> u64 {
        1
    }
    fn names(&self, kind: ResourceKind) -> Vec<Arc<str>> {
        self.now.keys().filter(|(of, _)| *of == kind).map(|(_, name)| Arc::clone(name)).collect()
    }
    fn known(&self, kind: ResourceKind, name: &str) -> Option<Arc<str>> {
        self.now.get_key_value(&(kind, name.into())).map(|((_, name), _)| Arc::clone(name))
    }
    fn encoded(&self, kind: ResourceKind, name: &str) -> Option<Arc<Encoded>> {
        self.now.get(&(kind, name.into())).map(|version| encoded(name, *version))
    }
    fn last_known(&self, kind: ResourceKind, name: &str) -> Option<Arc<Encoded>> {
        self.before.get(&(kind, name.into())).map(|version| encoded(name, *version))
    }
}

fn kind_of(word: &str) -> ResourceKind {
    match word {
        "CDS" => CDS,
        "EDS" => EDS,
        "LDS" => ResourceKind::Listener,
        "RDS" => ResourceKind::Routes,
        "VHDS" => ResourceKind::VirtualHost,
        other => panic!("{other}"),
    }
}

fn word_of(kind: ResourceKind) -> &'static str {
    match kind {
        ResourceKind::Cluster => "CDS",
        ResourceKind::Endpoints => "EDS",
        ResourceKind::Listener => "LDS",
        ResourceKind::Routes => "RDS",
        ResourceKind::VirtualHost => "VHDS",
        ResourceKind::Secret => "SDS",
    }
}

struct Talk {
    session: Session,
    world: World,
    now: Instant,
    nonces: BTreeMap<ResourceKind, u64>,
}

impl Talk {
    /// A client of a mesh of these resources, for example `CDS a@1, EDS a@1`.
    fn new(protocol: Protocol, resources: &str) -> Self {
        let mut talk = Self {
            session: Session::new(protocol),
            world: World::default(),
            now: Instant::now(),
            nonces: BTreeMap::new(),
        };
        talk.world.now = Self::read(resources);
        talk
    }

    fn read(resources: &str) -> BTreeMap<(ResourceKind, Arc<str>), u64> {
        let one = |text: &str| {
            let (kind, name) = text.trim().split_once(' ')?;
            let (name, version) = name.split_once('@')?;
            Some(((kind_of(kind), name.into()), version.parse().ok()?))
        };
        resources.split(',').filter_map(one).collect()
    }

    /// The mesh becomes this; the session is told of exactly what differs.
    fn mesh(&mut self, resources: &str) -> &mut Self {
        let now = Self::read(resources);
        let mut names: BTreeMap<ResourceKind, BTreeSet<Arc<str>>> = BTreeMap::new();
        for key in now.keys().chain(self.world.now.keys()) {
            if now.get(key) != self.world.now.get(key) {
                names.entry(key.0).or_default().insert(Arc::clone(&key.1));
            }
        }
        self.world.before = std::mem::replace(&mut self.world.now, now);
        self.session.changed(&names);
        self
    }

    /// `CDS +a -b =c@1`: subscribe, unsubscribe, already there. `CDS! text` refuses the last response.
    fn hear(&mut self, request: &str) -> Heard {
        let (kind, words) = request.split_once(' ').unwrap_or((request, ""));
        let refusal = kind.ends_with('!').then(|| api_xds::discovery::ErrorDetail { code: 3, message: words.into() });
        let words = if refusal.is_some() { "" } else { words };
        let kind = kind_of(kind.trim_end_matches('!'));
        let last = self.nonces.get(&kind).map(u64::to_string).unwrap_or_default();
        let pick = |sign: char| -> Vec<String> {
            words.split(' ').filter_map(|word| word.strip_prefix(sign)).map(str::to_owned).collect()
        };
        let type_url = api_xds::type_url(kind).to_owned();
        match self.session.protocol {
            Protocol::Delta => {
                let has = pick('=')
                    .iter()
                    .filter_map(|word| word.split_once('@'))
                    .map(|(n, v)| (n.into(), v.into()))
                    .collect();
                let request = DeltaDiscoveryRequest {
                    type_url,
                    resource_names_subscribe: pick('+'),
                    resource_names_unsubscribe: pick('-'),
                    initial_resource_versions: has,
                    response_nonce: if words.is_empty() { last } else { String::new() },
                    error_detail: refusal,
                    node: None,
                };
                self.session.hear_delta(&request, &self.world).unwrap()
            }
            Protocol::Whole => {
                let request = DiscoveryRequest {
                    type_url,
                    resource_names: pick('+'),
                    response_nonce: last,
                    error_detail: refusal,
                    ..DiscoveryRequest::default()
                };
                self.session.hear_whole(&request, &self.world).unwrap()
            }
        }
    }

    /// Everything that is due.
    fn says(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        while let Some(reply) = self.session.next(&self.world, self.now) {
            self.nonces.insert(reply.kind, reply.nonce);
            let mut text = word_of(reply.kind).to_owned();
            for resource in &reply.resources {
                text = format!("{text} {}", std::str::from_utf8(&resource.frame.any).unwrap());
            }
            if self.session.protocol == Protocol::Delta {
                reply.removed.iter().for_each(|name| text = format!("{text} -{name}"));
            }
            said.push(text);
            assert!(said.len() < 20, "never ends: {said:?}");
        }
        said
    }

    fn check(&mut self, request: &str, said: &[&str]) -> &mut Self {
        self.hear(request);
        assert_eq!(self.says(), said, "after {request:?}");
        self
    }

    fn check_mesh(&mut self, resources: &str, said: &[&str]) -> &mut Self {
        self.mesh(resources);
        assert_eq!(self.says(), said, "after the mesh became {resources:?}");
        self
    }
}

fn delta(resources: &str) -> Talk {
    Talk::new(Protocol::Delta, resources)
}

fn whole(resources: &str) -> Talk {
    Talk::new(Protocol::Whole, resources)
}

const MESH: &str = "CDS a@1, CDS b@1, EDS a@1, EDS b@1, LDS l@1, RDS r@1";

#[test]
fn delta_tells_what_is_asked_for_and_then_only_what_changes() {
    delta(MESH)
        .check("CDS", &["CDS a@1 b@1"])
        .check("EDS +a +b", &["EDS a@1 b@1"])
        .check("LDS +*", &["LDS l@1"])
        .check("RDS +r", &["RDS r@1"])
        .check("CDS", &[])
        .check_mesh("CDS a@1, CDS b@1, EDS a@2, EDS b@1, LDS l@1, RDS r@1", &["EDS a@2"])
        .check_mesh("CDS a@1, CDS b@1, EDS a@2, EDS b@1, LDS l@1, RDS r@2", &["RDS r@2"]);
}

#[test]
fn what_was_not_asked_for_is_not_told() {
    delta(MESH)
        .check("EDS +a", &["EDS a@1"])
        .check_mesh("EDS a@1, EDS b@2", &[])
        .check("EDS -a", &[])
        .check_mesh("EDS a@3", &[]);
}

#[test]
fn equal_versions_are_never_sent_again() {
    let mut talk = delta("CDS a@1");
    talk.check("CDS", &["CDS a@1"]).check_mesh("CDS a@2", &["CDS a@2"]).mesh("CDS a@3").check_mesh("CDS a@2", &[]);
    talk.session.changed(&BTreeMap::from([(CDS, BTreeSet::from(["a".into()]))]));
    assert_eq!(talk.says(), [""; 0]);
}

#[test]
fn a_table_asks_for_all_its_hosts() {
    delta("VHDS 80/a@1, VHDS 80/b@1, VHDS 81/a@1")
        .check("VHDS +80", &["VHDS 80/a@1 80/b@1"])
        .check_mesh("VHDS 80/a@2, VHDS 80/c@1, VHDS 81/a@2", &["VHDS 80/a@2 80/c@1 -80/b"])
        .check("VHDS +81", &["VHDS 81/a@2"])
        .check("VHDS -80", &[])
        .check_mesh("VHDS 80/a@3, VHDS 81/a@3", &["VHDS 81/a@3"]);
}

#[test]
fn a_table_without_hosts_is_said_to_have_none() {
    delta("VHDS 80/a@1").check("VHDS +81", &["VHDS -81"]).check_mesh("VHDS 81/a@1", &["VHDS 81/a@1"]);
}

#[test]
fn hosts_that_a_client_has_are_not_sent_again() {
    delta("VHDS 80/a@1, VHDS 80/b@2").check("VHDS +80 =80/a@1 =80/b@1 =80/c@1", &["VHDS 80/b@2 -80/c"]);
}

#[test]
fn a_name_asked_for_again_is_sent_again() {
    delta(MESH).check("EDS +a", &["EDS a@1"]).check("EDS +a", &["EDS a@1"]);
}

#[test]
fn a_name_that_stands_for_nothing_is_answered_and_comes_when_it_is_there() {
    delta("CDS a@1").check("EDS +x", &["EDS -x"]).check_mesh("EDS x@1", &["EDS x@1"]).check_mesh("", &["EDS -x"]);
}

#[test]
fn an_empty_mesh_is_answered_once() {
    delta("").check("CDS", &["CDS"]).check("CDS", &[]);
    whole("").check("CDS", &["CDS"]).check("CDS", &[]);
}

#[test]
fn a_client_that_comes_back_is_sent_what_differs() {
    delta("CDS a@1, CDS b@2, EDS a@1, EDS b@1")
        .check("CDS +* =a@1 =b@1 =c@1", &["CDS b@2", "CDS -c"])
        .check("EDS +a +b =a@1 =b@1", &[])
        .check_mesh("CDS a@1, CDS b@2, EDS a@2, EDS b@1", &["EDS a@2"]);
}

#[test]
fn a_version_of_another_control_plane_is_replaced() {
    delta("CDS a@1").check("CDS +* =a@none", &["CDS a@1"]);
}

#[test]
fn endpoints_follow_a_changed_cluster() {
    delta(MESH)
        .check("CDS", &["CDS a@1 b@1"])
        .check("EDS +a +b", &["EDS a@1 b@1"])
        .check_mesh("CDS a@2, CDS b@1, EDS a@1, EDS b@1, LDS l@1, RDS r@1", &["CDS a@2", "EDS a@1"]);
}

#[test]
fn routes_wait_for_the_endpoints_of_new_clusters() {
    let mut talk = delta("CDS a@1, EDS a@1, RDS r@1");
    talk.check("CDS", &["CDS a@1"]).check("EDS +a", &["EDS a@1"]).check("RDS +r", &["RDS r@1"]);
    talk.check_mesh("CDS a@1, CDS b@1, EDS a@1, EDS b@1, RDS r@2", &["CDS b@1"]);
    assert!(talk.session.wake_at().is_some());
    talk.check("EDS +b", &["EDS b@1", "RDS r@2"]);
    assert!(talk.session.wake_at().is_none());
}

#[test]
fn routes_do_not_wait_for_ever() {
    let mut talk = delta("CDS a@1, EDS a@1, RDS r@1");
    talk.check("CDS", &["CDS a@1"]).check("EDS +a", &["EDS a@1"]).check("RDS +r", &["RDS r@1"]);
    talk.check_mesh("CDS a@1, CDS b@1, EDS a@1, EDS b@1, RDS r@2", &["CDS b@1"]);
    talk.now += WARMING_LIMIT + Duration::from_millis(1);
    assert_eq!(talk.says(), ["RDS r@2"]);
}

#[test]
fn what_goes_is_removed_after_routes_have_left_it() {
    let mut talk = delta("CDS a@1, CDS b@1, EDS a@1, EDS b@1, RDS r@1");
    talk.check("CDS", &["CDS a@1 b@1"]).check("EDS +a +b", &["EDS a@1 b@1"]).check("RDS +r", &["RDS r@1"]);
    talk.check_mesh("CDS a@1, EDS a@1, RDS r@2", &["RDS r@2", "CDS -b", "EDS -b"]);
}

#[test]
fn what_comes_back_in_time_is_not_removed() {
    let mut talk = delta("CDS a@1, EDS a@1, CDS x@1, RDS r@1");
    talk.check("CDS", &["CDS a@1 x@1"]).check("EDS +a", &["EDS a@1"]);
    talk.mesh("CDS x@1, RDS r@1").check_mesh("CDS a@1, EDS a@1, CDS x@1, RDS r@1", &[]);
}

#[test]
fn a_refusal_is_remembered_until_the_next_response_is_taken() {
    let mut talk = delta("CDS a@1");
    talk.check("CDS", &["CDS a@1"]);
    assert_eq!(talk.hear("CDS! bad"), Heard::Refused(CDS, "bad".into()));
    assert_eq!(talk.says(), [""; 0]);
    assert_eq!(talk.session.watched().next().unwrap().1.refusal.as_deref(), Some("bad"));
    talk.check_mesh("CDS a@2", &["CDS a@2"]);
    assert_eq!(talk.hear("CDS"), Heard::Took(CDS));
    assert_eq!(talk.session.watched().next().unwrap().1.refusal, None);
}

#[test]
fn whole_sends_all_clusters_but_only_changed_endpoints() {
    whole(MESH)
        .check("CDS", &["CDS a@1 b@1"])
        .check("CDS", &[])
        .check("EDS +a +b", &["EDS a@1 b@1"])
        .check("EDS +a +b", &[])
        .check_mesh("CDS a@1, CDS b@1, EDS a@2, EDS b@1, LDS l@1, RDS r@1", &["EDS a@2"])
        .check_mesh("CDS a@2, CDS b@1, EDS a@2, EDS b@1, LDS l@1, RDS r@1", &["CDS a@2 b@1", "EDS a@2"]);
}

#[test]
fn whole_answers_only_the_names_added() {
    whole(MESH).check("EDS +a", &["EDS a@1"]).check("EDS +a +b", &["EDS b@1"]).check("EDS +b", &[]);
}

#[test]
fn whole_clients_may_ask_for_listeners_by_name() {
    whole("LDS l@1, LDS m@1, CDS a@1")
        .check("LDS +l", &["LDS l@1"])
        .check("LDS +l", &[])
        .check_mesh("LDS l@1, LDS m@2, CDS a@1", &[])
        .check("LDS +l +m", &["LDS l@1 m@2"])
        .check("LDS +m +x", &["LDS m@2"])
        .check_mesh("LDS l@1, CDS a@1", &["LDS"]);
}

#[test]
fn whole_keeps_a_cluster_until_routes_have_left_it() {
    let mut talk = whole("CDS a@1, CDS b@1, RDS r@1");
    talk.check("CDS", &["CDS a@1 b@1"]).check("RDS +r", &["RDS r@1"]);
    talk.check_mesh("CDS a@1, CDS c@1, RDS r@2", &["CDS a@1 c@1 b@1", "RDS r@2", "CDS a@1 c@1"]);
}

#[test]
fn whole_ignores_answers_to_earlier_responses() {
    let mut talk = whole("EDS a@1, EDS b@1");
    talk.check("EDS +a", &["EDS a@1"]);
    talk.mesh("EDS a@2, EDS b@1");
    let first = talk.nonces[&EDS];
    assert_eq!(talk.says(), ["EDS a@2"]);
    talk.nonces.insert(EDS, first);
    assert_eq!(talk.hear("EDS +a +b"), Heard::Stale(EDS));
    assert_eq!(talk.says(), [""; 0]);
}

#[test]
fn a_nonce_of_another_stream_begins_anew() {
    let mut talk = whole("CDS a@1");
    talk.nonces.insert(CDS, 7);
    talk.check("CDS", &["CDS a@1"]);
}

#[test]
fn types_that_are_not_served_are_ignored() {
    let mut session = Session::new(Protocol::Delta);
    let request = DeltaDiscoveryRequest { type_url: "type.googleapis.com/x.Y".into(), ..Default::default() };
    let heard = session.hear_delta(&request, &World::default()).unwrap();
    assert_eq!(heard, Heard::Unknown("type.googleapis.com/x.Y".into()));
}

#[test]
fn too_many_names_end_the_conversation() {
    let mut session = Session::new(Protocol::Delta);
    let names = (0..=crate::limits::NAMES_MAX).map(|n| n.to_string()).collect();
    let request = DeltaDiscoveryRequest {
        type_url: api_xds::type_url(EDS).into(),
        resource_names_subscribe: names,
        ..Default::default()
    };
    assert_eq!(session.hear_delta(&request, &World::default()), Err(Overfull));
}
