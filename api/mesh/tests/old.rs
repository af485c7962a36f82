//! What to write instead of objects of Istio's old groups: one line a case.
//!
//! An object is written `Kind name spec`, in namespace shop; what is expected `Kind namespace/name spec`.
//! Never here: how the webhook tells it. Called by `cargo test`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod support;

use api::note::{Notes, Severity};
use api_mesh::{
    object::{Strictness, from_json},
    old::{Instead, Written, instead},
};
use serde_json::{Value, json};

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: { name: reviews, namespace: shop }
spec:
  selector: { app: reviews, tier: web }
  clusterIP: 198.19.0.7
  ports: [{ name: http, port: 80, targetPort: 9080 }]
";

const VERSIONS: [&str; 3] = ["authentication.istio.io/v1alpha1", "rbac.istio.io/v1alpha1", "config.istio.io/v1alpha2"];

/// Splits `a b rest`.
fn words(line: &str) -> (&str, &str, Value) {
    let mut words = line.splitn(3, ' ');
    let (first, second) = (words.next().unwrap(), words.next().unwrap());
    let spec =
        words.next().map_or(json!({}), |spec| serde_saphyr::from_str(spec).unwrap_or_else(|e| panic!("{e}: {spec}")));
    (first, second, spec)
}

fn of(object: &str) -> Instead {
    let (kind, name, spec) = words(object);
    let catalog = support::catalog(&support::objects(SERVICE));
    let namespace = if ["MeshPolicy", "ClusterRbacConfig"].contains(&kind) { Value::Null } else { json!("shop") };
    let object = |version: &str| json!({ "apiVersion": version, "kind": kind, "metadata": { "name": name, "namespace": namespace }, "spec": spec });
    VERSIONS.iter().find_map(|version| instead(&object(version), &catalog)).unwrap()
}

/// Whether the mesh would take an object, or refuse it at admission.
fn is_refused(object: &Value) -> bool {
    let (stored, _) = from_json(object.clone(), Strictness::Refuse).unwrap();
    let mut catalog = support::catalog(&support::objects(SERVICE));
    catalog.apply(&stored);
    let errors = |notes: &Notes| notes.iter().any(|note| note.severity == Severity::Error);
    catalog.notes_of(&stored.reference()).is_some_and(errors)
}

/// What is written instead, exactly; each is an object of today without an unknown field. One that is refused today begins
/// with `!`, and the answer says so.
fn check(object: &str, written: &[&str]) {
    let instead = of(object);
    let expected: Vec<Value> = written
        .iter()
        .map(|line| {
            let (refused, line) = line.strip_prefix('!').map_or((false, *line), |line| (true, line));
            let (kind, name, spec) = words(line);
            let (namespace, name) = name.split_once('/').unwrap();
            json!([refused, kind, namespace, name, spec])
        })
        .collect();
    let found: Vec<Value> = instead
        .write
        .iter()
        .map(|Written { value, .. }| {
            let (kind, metadata, spec) = (&value["kind"], &value["metadata"], &value["spec"]);
            json!([is_refused(value), kind, metadata["namespace"], metadata["name"], spec])
        })
        .collect();
    assert_eq!(json!(found), json!(expected), "\n{instead}");
    let yaml = instead.to_string();
    let values: Vec<&Value> = instead.write.iter().map(|written| &written.value).collect();
    assert_eq!(json!(support::documents(yaml.split_once('\n').unwrap().1)), json!(values), "{yaml}");
    for (number, document) in yaml.split("---\n").skip(1).enumerate() {
        assert_eq!(document.contains("# REFUSED TODAY: "), expected[number][0] == true, "{yaml}");
    }
    let refused = expected.iter().filter(|one| one[0] == true).count();
    let head = format!("write instead, but {refused} of these {} are refused today:", expected.len());
    assert_eq!(yaml.lines().next().unwrap().ends_with(&head), refused > 0, "{yaml}");
}

/// What is said beside it.
fn says(object: &str, text: &str) {
    let instead = of(object).to_string();
    assert!(instead.contains(text), "{text}\n{instead}");
}

#[test]
fn policies_become_peer_authentications() {
    check("Policy default {peers: [{mtls: {}}]}", &["PeerAuthentication shop/default {mtls: {mode: STRICT}}"]);
    check("Policy default {peers: [{mtls: null}]}", &["PeerAuthentication shop/default {mtls: {mode: STRICT}}"]);
    check(
        "Policy default {peers: [{mtls: {mode: PERMISSIVE}}]}",
        &["PeerAuthentication shop/default {mtls: {mode: PERMISSIVE}}"],
    );
    check(
        "Policy default {peers: [{mtls: {}}], peerIsOptional: true}",
        &["PeerAuthentication shop/default {mtls: {mode: PERMISSIVE}}"],
    );
    check("Policy default {}", &["PeerAuthentication shop/default {mtls: {mode: DISABLE}}"]);
    check(
        "MeshPolicy default {peers: [{mtls: {}}]}",
        &["PeerAuthentication istio-system/default {mtls: {mode: STRICT}}"],
    );
    check(
        "Policy r {targets: [{name: reviews}], peers: [{mtls: {}}]}",
        &["PeerAuthentication shop/r {selector: {matchLabels: {app: reviews, tier: web}}, mtls: {mode: STRICT}}"],
    );
    check(
        "Policy r {targets: [{name: other}], peers: [{mtls: {}}]}",
        &["PeerAuthentication shop/r {selector: {matchLabels: {app: other}}, mtls: {mode: STRICT}}"],
    );
    check(
        "Policy r {targets: [{name: reviews, ports: [{number: 80}]}], peers: [{mtls: {}}]}",
        &[
            "PeerAuthentication shop/r {selector: {matchLabels: {app: reviews, tier: web}}, portLevelMtls: {'9080': {mode: STRICT}}}",
        ],
    );
    check(
        "Policy r {targets: [{name: reviews, ports: [{name: http}]}], peers: [{mtls: {}}]}",
        &[
            "PeerAuthentication shop/r {selector: {matchLabels: {app: reviews, tier: web}}, portLevelMtls: {'9080': {mode: STRICT}}}",
        ],
    );
    check(
        "Policy r {targets: [{name: other, ports: [{number: 7}]}], peers: [{mtls: {}}]}",
        &["PeerAuthentication shop/r {selector: {matchLabels: {app: other}}, portLevelMtls: {'7': {mode: STRICT}}}"],
    );
    check("Policy r {targets: [{name: other, ports: [{name: grpc}]}], peers: [{mtls: {}}]}", &[]);
    check(
        "Policy r {targets: [{name: a}, {name: b}], peers: [{mtls: {}}]}",
        &[
            "PeerAuthentication shop/r-a {selector: {matchLabels: {app: a}}, mtls: {mode: STRICT}}",
            "PeerAuthentication shop/r-b {selector: {matchLabels: {app: b}}, mtls: {mode: STRICT}}",
        ],
    );
    says("Policy default {peers: [{mtls: {}}]}", "callers need no DestinationRule with tls.mode ISTIO_MUTUAL any more");
    says("Policy default {}", "a DestinationRule for these hosts with tls.mode ISTIO_MUTUAL fails then");
    says("Policy mine {peers: [{mtls: {}}]}", "only the policy named default held for its namespace");
    says("Policy r {targets: [{name: other}], peers: [{mtls: {}}]}", "put its selector in place of app: other");
    says("Policy default {peers: [{mtls: {allowTls: true}}]}", "# NOT TRANSLATED: spec.peers[0].mtls.allowTls: ");
    says("Policy default {colour: red}", "# NOT TRANSLATED: spec.colour: has no equal today");
}

#[test]
fn origins_become_request_authentications_and_a_demand_for_tokens() {
    let off = "PeerAuthentication shop/default {mtls: {mode: DISABLE}}";
    let jwt = "!RequestAuthentication shop/default {jwtRules: [{issuer: me, jwksUri: 'https://me/keys', forwardOriginalToken: true}]}";
    let origins =
        |more: &str| format!("Policy default {{origins: [{{jwt: {{issuer: me, jwksUri: 'https://me/keys'{more}}}}}]");
    check(&format!("{}, originIsOptional: true}}", origins("")), &[off, jwt]);
    check(
        &format!("{}}}", origins("")),
        &[
            off,
            jwt,
            "!AuthorizationPolicy shop/default-needs-token {action: DENY, rules: [{from: [{source: {notRequestPrincipals: ['*']}}]}]}",
        ],
    );
    check(
        &format!("{}}}", origins(", triggerRules: [{excludedPaths: [{exact: /health}, {prefix: /public/}]}]")),
        &[
            off,
            jwt,
            "!AuthorizationPolicy shop/default-needs-token {action: DENY, rules: [{from: [{source: {notRequestPrincipals: ['*']}}], to: [{operation: {notPaths: [/health, /public/*]}}]}]}",
        ],
    );
    check(
        &format!("{}}}", origins(", triggerRules: [{includedPaths: [{suffix: .json}]}]")),
        &[
            off,
            jwt,
            "!AuthorizationPolicy shop/default-needs-token {action: DENY, rules: [{from: [{source: {notRequestPrincipals: ['*']}}], to: [{operation: {paths: ['*.json']}}]}]}",
        ],
    );
    // A path that cannot be said: tokens are demanded on all.
    check(
        &format!("{}}}", origins(", triggerRules: [{includedPaths: [{regex: '/a.*'}]}]")),
        &[
            off,
            jwt,
            "!AuthorizationPolicy shop/default-needs-token {action: DENY, rules: [{from: [{source: {notRequestPrincipals: ['*']}}]}]}",
        ],
    );
    check(
        "Policy default {peers: [{mtls: {}}], originIsOptional: true, origins: [{jwt: {issuer: me, audiences: [a], jwtHeaders: [x-t], jwtParams: [t]}}]}",
        &[
            "PeerAuthentication shop/default {mtls: {mode: STRICT}}",
            "!RequestAuthentication shop/default {jwtRules: [{issuer: me, audiences: [a], fromHeaders: [{name: x-t}], fromParams: [t], forwardOriginalToken: true}]}",
        ],
    );
    says(&format!("{}}}", origins("")), "write instead, but 2 of these 3 are refused today:\n");
    says(&format!("{}}}", origins("")), "# REFUSED TODAY: not enforced yet: RequestAuthentication is refused");
    says(&format!("{}, principalBinding: USE_ORIGIN}}", origins("")), "source.requestPrincipals");
}

#[test]
fn roles_and_bindings_become_halves_that_allow_nobody() {
    let from = "from: [{source: {principals: [PUT-HERE-THE-SUBJECTS-OF-ITS-SERVICEROLEBINDING]}}]";
    let to = "to: [{operation: {paths: [PUT-HERE-THE-RULES-OF-SERVICEROLE-reader]}}]";
    let selector = "selector: {matchLabels: {app: reviews, tier: web}}";
    check(
        "ServiceRole r {rules: [{services: ['*'], methods: ['*']}]}",
        &[&format!("AuthorizationPolicy shop/r {{action: ALLOW, rules: [{{{from}}}]}}")],
    );
    check(
        "ServiceRole r {rules: [{services: [reviews.shop.svc.cluster.local], methods: [GET], paths: [/a/*]}]}",
        &[&format!(
            "AuthorizationPolicy shop/r {{{selector}, action: ALLOW, rules: [{{{from}, to: [{{operation: {{methods: [GET], paths: [/a/*]}}}}]}}]}}"
        )],
    );
    check(
        "ServiceRole r {rules: [{services: ['*'], constraints: [{key: 'request.headers[x]', values: [yes-it-is]}, {key: 'destination.labels[version]', values: [v1]}]}]}",
        &[&format!(
            "AuthorizationPolicy shop/r {{selector: {{matchLabels: {{version: v1}}}}, action: ALLOW, rules: [{{{from}, when: [{{key: 'request.headers[x]', values: [yes-it-is]}}]}}]}}"
        )],
    );
    check(
        "ServiceRole r {rules: [{services: ['*'], constraints: [{key: destination.user, values: [yes-it-is]}]}]}",
        &[],
    );
    check("ServiceRole r {rules: [{services: [rev*]}]}", &[]);
    check(
        "ServiceRoleBinding b {subjects: [{user: a/b}], roleRef: {kind: ServiceRole, name: reader}}",
        &[&format!(
            "AuthorizationPolicy shop/b {{action: ALLOW, rules: [{{from: [{{source: {{principals: [a/b]}}}}], {to}}}]}}"
        )],
    );
    check(
        "ServiceRoleBinding b {subjects: [{user: '*'}], roleRef: {kind: ServiceRole, name: reader}}",
        &[&format!("AuthorizationPolicy shop/b {{action: ALLOW, rules: [{{{to}}}]}}")],
    );
    check(
        "ServiceRoleBinding b {subjects: [{properties: {source.namespace: other, 'request.auth.claims[g]': x}}], role: reader}",
        &[&format!(
            "!AuthorizationPolicy shop/b {{action: ALLOW, rules: [{{from: [{{source: {{namespaces: [other]}}}}], when: [{{key: 'request.auth.claims[g]', values: [x]}}], {to}}}]}}"
        )],
    );
    check(
        "ServiceRoleBinding b {subjects: [{names: [a]}], actions: [{services: [reviews], methods: [GET]}]}",
        &[&format!(
            "AuthorizationPolicy shop/b {{{selector}, action: ALLOW, rules: [{{from: [{{source: {{principals: [a]}}}}], to: [{{operation: {{methods: [GET]}}}}]}}]}}"
        )],
    );
    // A subject that cannot be said matches nobody, never everybody.
    check(
        "ServiceRoleBinding b {subjects: [{properties: {source.moon: full}}], actions: [{services: ['*']}]}",
        &["AuthorizationPolicy shop/b {action: ALLOW}"],
    );
    check(
        "ServiceRoleBinding b {subjects: [{colour: red}], actions: [{services: ['*']}]}",
        &["AuthorizationPolicy shop/b {action: ALLOW}"],
    );
    check(
        "ServiceRoleBinding b {subjects: [], actions: [{services: ['*']}]}",
        &["AuthorizationPolicy shop/b {action: ALLOW}"],
    );
    check(
        "ServiceRoleBinding b {subjects: [{}], actions: [{services: ['*']}]}",
        &["AuthorizationPolicy shop/b {action: ALLOW}"],
    );
    check("ServiceRole r {rules: [{services: ['*'], colour: red}]}", &[]);
    says(
        "ServiceRoleBinding b {mode: PERMISSIVE, subjects: [{names: [a]}], actions: [{services: ['*']}]}",
        "istio.io/dry-run: \"true\"",
    );
}

#[test]
fn the_switch_of_rbac_becomes_policies_that_allow_nothing_or_all() {
    let nothing = "AuthorizationPolicy istio-system/allow-nothing {}";
    check("ClusterRbacConfig default {mode: OFF}", &[]);
    check("ClusterRbacConfig default {mode: 'ON'}", &[nothing]);
    check(
        "ClusterRbacConfig default {mode: ON_WITH_INCLUSION, inclusion: {namespaces: [a, b]}}",
        &["AuthorizationPolicy a/allow-nothing {}", "AuthorizationPolicy b/allow-nothing {}"],
    );
    check(
        "ClusterRbacConfig default {mode: ON_WITH_INCLUSION, inclusion: {services: [reviews.shop.svc.cluster.local]}}",
        &["AuthorizationPolicy shop/allow-nothing-reviews {selector: {matchLabels: {app: reviews, tier: web}}}"],
    );
    check(
        "ClusterRbacConfig default {mode: ON_WITH_EXCLUSION, exclusion: {namespaces: [a]}}",
        &[nothing, "AuthorizationPolicy a/allow-all {rules: [{}]}"],
    );
}

#[test]
fn routing_becomes_todays_routing() {
    check(
        "RouteRule r {destination: {name: reviews}, precedence: 1, route: [{labels: {version: v1}, weight: 100}]}",
        &[
            "VirtualService shop/r {hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: v1}, weight: 100}]}]}",
            "DestinationRule shop/reviews {host: reviews, subsets: [{name: v1, labels: {version: v1}}]}",
        ],
    );
    check(
        "RouteRule r {destination: {name: reviews}, match: {request: {headers: {uri: {prefix: /a}, cookie: {regex: x}}}}, httpReqTimeout: {simpleTimeout: {timeout: 10s}}, httpReqRetries: {simpleRetry: {attempts: 3, perTryTimeout: 2s}}}",
        &[
            "VirtualService shop/r {hosts: [reviews], http: [{match: [{uri: {prefix: /a}, headers: {cookie: {regex: x}}}], route: [{destination: {host: reviews}}], timeout: 10s, retries: {attempts: 3, perTryTimeout: 2s}}]}",
        ],
    );
    check(
        "RouteRule r {destination: {name: ratings, namespace: other}, match: {source: {name: reviews, labels: {version: v2}}}, httpFault: {delay: {percent: 100, fixedDelay: 7s}, abort: {percent: 10, httpStatus: 400}}}",
        &[
            "VirtualService shop/r {hosts: [ratings.other.svc.cluster.local], http: [{match: [{sourceLabels: {version: v2, app: reviews}}], route: [{destination: {host: ratings.other.svc.cluster.local}}], fault: {delay: {percentage: {value: 100}, fixedDelay: 7s}, abort: {percentage: {value: 10}, httpStatus: 400}}}]}",
        ],
    );
    check(
        "RouteRule r {destination: {name: a}, redirect: {uri: /b}}",
        &["VirtualService shop/r {hosts: [a], http: [{redirect: {uri: /b}}]}"],
    );
    check("RouteRule r {route: []}", &[]);
    check(
        "EgressRule e {destination: {service: api.example.com}, ports: [{port: 80, protocol: http}]}",
        &[
            "ServiceEntry shop/e {hosts: [api.example.com], location: MESH_EXTERNAL, ports: [{number: 80, name: http-80, protocol: HTTP}], resolution: DNS}",
        ],
    );
    check(
        "EgressRule e {destination: {service: '*.example.com'}, ports: [{port: 443, protocol: https}]}",
        &[
            "DestinationRule shop/e {host: '*.example.com', trafficPolicy: {portLevelSettings: [{port: {number: 443}, tls: {mode: SIMPLE}}]}}",
            "ServiceEntry shop/e {hosts: ['*.example.com'], location: MESH_EXTERNAL, ports: [{number: 443, name: https-443, protocol: HTTP}], resolution: NONE}",
        ],
    );
    check(
        "EgressRule e {destination: {service: 192.0.2.0/24}, ports: [{port: 5432, protocol: tcp}]}",
        &[
            "ServiceEntry shop/e {hosts: [e.external], location: MESH_EXTERNAL, ports: [{number: 5432, name: tcp-5432, protocol: TCP}], resolution: NONE, addresses: [192.0.2.0/24]}",
        ],
    );
    check(
        "DestinationPolicy d {destination: {name: reviews, labels: {version: v1}}, circuitBreaker: {simpleCb: {maxConnections: 100, httpMaxRequests: 5, sleepWindow: 2m}}}",
        &[
            "DestinationRule shop/d {host: reviews, subsets: [{name: v1, labels: {version: v1}, trafficPolicy: {connectionPool: {tcp: {maxConnections: 100}, http: {http2MaxRequests: 5}}, outlierDetection: {baseEjectionTime: 2m}}}]}",
        ],
    );
    check(
        "DestinationPolicy d {destination: {name: reviews}, loadBalancing: {name: LEAST_CONN}}",
        &["DestinationRule shop/d {host: reviews, trafficPolicy: {loadBalancer: {simple: LEAST_REQUEST}}}"],
    );
    says("DestinationPolicy d {source: {name: a}, destination: {name: reviews}}", "# NOT TRANSLATED: spec.source: ");
    says("RouteRule r {destination: {name: a}, l4Fault: {}}", "# NOT TRANSLATED: spec.l4Fault: has no equal today");
}

#[test]
fn mixers_kinds_name_the_object_that_does_their_job() {
    says("rule promhttp {actions: [{handler: handler.prometheus}]}", "kind: Telemetry");
    says("rule stdio {actions: [{handler: handler.stdio.istio-system}]}", "accessLogging");
    says("rule denyall {actions: [{handler: denyall.denier}]}", "action: DENY");
    says("rule quota {actions: [{handler: handler.memquota}]}", "envoy.filters.http.local_ratelimit");
    says("rule mine {actions: [{handler: h1}]}", "which adapter it is for cannot be told from it");
    says("handler opa {compiledAdapter: opa}", "action: CUSTOM");
    says("instance m {compiledTemplate: metric}", "kind: Telemetry");
    says("adapter mine {}", "WasmPlugin");
    says("quota q {}", "no object of today says the same");
    says("attributemanifest istioproxy {}", "nothing is to be written instead");
    says("metric requestcount {value: 1}", "tagOverrides");
    says("tracespan t {}", "randomSamplingPercentage");
}

#[test]
fn what_is_written_can_be_applied_as_it_stands() {
    let text = of("Policy r {targets: [{name: a}], peers: [{mtls: {}}], origins: [{jwt: {issuer: me}}]}").to_string();
    let (_, yaml) = text.split_once('\n').unwrap();
    let kinds: Vec<Value> = support::documents(yaml).into_iter().map(|object| object["kind"].clone()).collect();
    assert_eq!(json!(kinds), json!(["PeerAuthentication", "RequestAuthentication", "AuthorizationPolicy"]));
}

#[test]
fn todays_objects_have_no_instead() {
    let catalog = support::catalog(&[]);
    for (version, kind) in
        [("networking.istio.io/v1", "VirtualService"), ("v1", "Service"), ("config.istio.io/v1", "rule")]
    {
        assert_eq!(
            instead(&json!({ "apiVersion": version, "kind": kind, "metadata": { "name": "a" } }), &catalog),
            None
        );
    }
}
