//! Copies of requests: who gets them, what they say, and that they cost the original nothing.
//!
//! Never here: which share is copied (`api`). Run by `cargo test`.

use std::{cell::RefCell, net::SocketAddr, rc::Rc, time::Duration};

use api::{name::Percent, spec::*};
use tokio::net::TcpListener;

use super::{
    app, ask, get,
    h2::paused,
    local,
    mesh::{Authority, REVIEWS, WEB, inbound, outbound, serve},
    ok, proxy,
    spec::{cluster, forward, http, route},
};
use crate::limits::{MIRROR_TIMEOUT, MIRRORS_MAX};

fn mirrored() -> Action {
    let mirrors = vec![Mirror { cluster: "shadow".into(), share: Percent::ALL }];
    Action::Forward(Box::new(Forward { mirrors, ..forward("c") }))
}

fn both(main: SocketAddr, shadow: SocketAddr) -> Spec {
    http(vec![route(mirrored())], vec![cluster("c", &[main]), cluster("shadow", &[shadow])])
}

/// An application that answers all, and the heads and bodies that it has read.
async fn noting() -> (SocketAddr, Rc<RefCell<Vec<String>>>) {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let noted = Rc::clone(&seen);
    let address = app(move |head| {
        noted.borrow_mut().push(head.to_owned());
        ok("shadow")
    })
    .await;
    (address, seen)
}

#[test]
fn a_mirrored_request_reaches_both() {
    local(async {
        let (shadow, seen) = noting().await;
        let main = app(|_| ok("main")).await;
        let (_, address) = proxy(&both(main, shadow)).await;
        assert!(ask(address, &get("/")).await.ends_with("main"));
        let post = "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi";
        assert!(ask(address, post).await.ends_with("main"));
        while seen.borrow().len() < 2 {
            tokio::task::yield_now().await;
        }
        let seen = seen.borrow();
        assert!(seen[1].starts_with("POST /x HTTP/1.1\r\nhost: a\r\n") && seen[1].ends_with("\r\n\r\nhi"), "{seen:?}");
    });
}

#[test]
fn a_copy_to_the_mesh_proves_who_asks() {
    local(async {
        let authority = Authority::new();
        let (shadow, seen) = noting().await;
        let (inner, inside) = serve(authority.identity(REVIEWS), &inbound(shadow, true, vec![])).await;
        let mut spec = outbound(&[inside], &[REVIEWS], UpstreamVersion::Http1);
        let main = app(|_| ok("main")).await;
        let guarded = Cluster { name: "shadow".into(), ..Cluster::clone(&spec.clusters["c"]) };
        spec.clusters.insert("shadow".into(), guarded.into());
        spec.clusters.insert("c".into(), cluster("c", &[main]).into());
        let listeners = http(vec![route(mirrored())], vec![]).listeners;
        let (_outer, address) = serve(authority.identity(WEB), &Spec { listeners, ..spec }).await;
        assert!(ask(address, &get("/")).await.ends_with("main"));
        while seen.borrow().is_empty() || !inner.metrics().contains("istio_requests_total{") {
            tokio::task::yield_now().await;
        }
        let metrics = inner.metrics();
        assert!(metrics.contains(&format!("source_principal=\"{WEB}\"")), "{metrics}");
    });
}

#[test]
fn copies_that_nobody_answers_are_given_up_and_are_not_many() {
    paused(async {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let main = app(|_| ok("main")).await;
        let (proxy, address) = proxy(&both(main, silent.local_addr().unwrap())).await;
        assert!(ask(address, &get("/")).await.ends_with("main"));
        let under_way = &proxy.worker.mirrors;
        assert_eq!(under_way.get(), 1);
        tokio::time::sleep(MIRROR_TIMEOUT - Duration::from_secs(1)).await;
        assert_eq!(under_way.get(), 1);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(under_way.get(), 0);
        under_way.set(MIRRORS_MAX);
        assert!(ask(address, &get("/")).await.ends_with("main"));
        assert_eq!(under_way.get(), MIRRORS_MAX);
        let tables = proxy.worker.shared.tables.load();
        let shadow = tables.clusters().find(|cluster| &*cluster.name == "shadow").unwrap();
        assert_eq!(shadow.live.stats.overflow.get(), 1);
    });
}
