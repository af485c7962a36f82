//! What authorization refuses: the reply, the closed connection, and the line that names the rule.
//!
//! Never here: which rule matches (`api::authz`), identities (`mesh`). Run by `cargo test`.

use std::{cell::Cell, rc::Rc, time::Duration};

use api::spec::*;

use super::{
    Client, Proxy, app, ask, get, local, ok, proxy,
    spec::{chain, cluster, forward, listener, route, server, spec},
};

const FORMAT: &str =
    "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% %BYTES_SENT%\n";

fn log(name: &str) -> AccessLog {
    let file = std::env::temp_dir().join(format!("proxy-denied-{name}-{}", std::process::id()));
    AccessLog { path: file.to_string_lossy().into_owned(), format: Some(FORMAT.into()), json: false }
}

/// The lines of the log, once there are any.
pub(super) async fn lines(proxy: &Proxy, log: &AccessLog) -> String {
    proxy.worker.finish().await;
    proxy.worker.lines.flush(&proxy.worker);
    let text = loop {
        match std::fs::read_to_string(&log.path) {
            Ok(text) if !text.is_empty() => break text,
            _ => tokio::task::yield_now().await,
        }
    };
    std::fs::remove_file(&log.path).unwrap();
    text
}

fn deny(path: &str) -> Vec<Authorization> {
    let to = vec![vec![AuthorizationClause::is(OperationTest::Paths(vec![path.to_owned()]))]];
    let rule = AuthorizationRule { name: "ns[shop]-policy[guard]-rule[0]".into(), from: vec![], to, origin: None };
    vec![Authorization { action: AuthorizationAction::Deny, rules: vec![rule] }]
}

#[test]
fn a_denied_request_goes_nowhere_and_its_line_names_the_rule() {
    local(async {
        let seen = Rc::new(Cell::new(0));
        let counted = Rc::clone(&seen);
        let app = app(move |_| {
            counted.set(counted.get() + 1);
            ok("x")
        })
        .await;
        let log = log("request");
        let action = Action::Forward(Box::new(forward("c")));
        let guarded =
            HttpServer { authorization: deny("/admin"), access_log: Some(log.clone()), ..server(vec![route(action)]) };
        let spec = spec(listener(chain(Network::Http(Box::new(guarded)))), vec![cluster("c", &[app])]);
        let (proxy, address) = proxy(&spec).await;
        let reply = ask(address, &get("/pub/..;/admin?x")).await;
        assert!(reply.starts_with("HTTP/1.1 403 ") && reply.ends_with("\r\n\r\nRBAC: access denied"), "{reply}");
        assert_eq!(seen.get(), 0);
        let details = "rbac_access_denied_matched_policy[ns[shop]-policy[guard]-rule[0]]";
        assert_eq!(lines(&proxy, &log).await, format!("403 - {details} - 19\n"));
    });
}

#[test]
fn a_denied_connection_is_closed_and_its_line_says_so() {
    local(async {
        let log = log("connection");
        let tcp = TcpServer {
            stat_prefix: "c".into(),
            clusters: vec![WeightedCluster { cluster: "c".into(), weight: 1, headers: HeaderChanges::default() }],
            authorization: vec![Authorization { action: AuthorizationAction::Allow, rules: Vec::new() }],
            access_log: Some(log.clone()),
            idle_timeout: Duration::ZERO,
            max_duration: Duration::ZERO,
            metrics: true,
        };
        let listener = Listener { detect: Detect::default(), ..listener(chain(Network::Tcp(Box::new(tcp)))) };
        let app = app(|_| ok("x")).await;
        let (proxy, address) = proxy(&spec(listener, vec![cluster("c", &[app])])).await;
        let mut client = Client::to(address).await;
        assert_eq!(client.rest().await, "");
        assert_eq!(lines(&proxy, &log).await, "0 - - rbac_access_denied_matched_policy[none] 0\n");
    });
}
