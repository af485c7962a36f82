//! Requests and connections through one proxy without TLS.
//!
//! Replies, retries, limits, upgrades, logs: what one client and one application can see.
//! Never here: identities (`mesh`). Run by `cargo test`.

use std::{cell::Cell, rc::Rc, sync::Arc, time::Duration};

use api::{name::Percent, spec::*};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    Client, Proxy, app, app_for, ask, get, local, nobody, ok, proxy,
    spec::{chain, cluster, forward, http, listener, retry, route, server, spec, to},
};
use crate::worker::Phase;

#[test]
fn a_request_goes_through_with_its_headers_as_written() {
    local(async {
        let app = app(ok).await;
        let (proxy, address) = proxy(&to(&[app])).await;
        let reply = ask(address, "GET /a?b=c HTTP/1.1\r\nHost: a.test\r\nX-Mixed-Case: Yes\r\n\r\n").await;
        assert!(reply.starts_with("HTTP/1.1 200 OK\r\n"), "{reply}");
        assert!(
            reply.contains("server: istio-envoy\r\n") && reply.contains("x-envoy-upstream-service-time: "),
            "{reply}"
        );
        let (_, seen) = reply.split_once("\r\n\r\n").unwrap();
        assert!(seen.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{seen}");
        for part in
            ["X-Mixed-Case: Yes\r\n", "x-request-id: ", "x-envoy-attempt-count: 1\r\n", "x-forwarded-proto: http\r\n"]
        {
            assert!(seen.contains(part), "{part} in {seen}");
        }
        let metrics = proxy.metrics();
        assert!(metrics.contains("istio_requests_total{reporter=\"source\""), "{metrics}");
    });
}

#[test]
fn what_has_no_answer_is_told_in_envoys_words() {
    local(async {
        let missing = http(vec![], vec![]);
        let (_, address) = proxy(&missing).await;
        assert!(ask(address, &get("/")).await.starts_with("HTTP/1.1 404 "));

        let (_, address) = proxy(&to(&[])).await;
        assert!(ask(address, &get("/")).await.ends_with("\r\n\r\nno healthy upstream"));

        let action = Action::Forward(Box::new(forward("gone")));
        let (_, address) = proxy(&http(vec![route(action)], vec![])).await;
        assert!(ask(address, &get("/")).await.starts_with("HTTP/1.1 503 "));

        let (proxy, address) = proxy(&to(&[nobody().await])).await;
        let reply = ask(address, &get("/")).await;
        assert!(
            reply.contains("remote connection failure, transport failure reason: delayed connect error: 111"),
            "{reply}"
        );
        assert!(proxy.metrics().contains("response_flags=\"UF,URX\""), "{}", proxy.metrics());
    });
}

#[test]
fn grpc_clients_are_told_by_status() {
    local(async {
        let (_, address) = proxy(&to(&[])).await;
        let reply = ask(
            address,
            "POST /a.B/C HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\n\r\n",
        )
        .await;
        assert!(reply.starts_with("HTTP/1.1 200 ") && reply.contains("grpc-status: 14\r\n"), "{reply}");
    });
}

#[test]
fn an_endpoint_that_refuses_is_passed_over() {
    local(async {
        let app = app(|_| ok("here")).await;
        let (_, address) = proxy(&to(&[nobody().await, app, nobody().await])).await;
        let mut client = Client::to(address).await;
        for _ in 0..10 {
            assert!(client.ask(&get("/")).await.ends_with("here"));
        }
    });
}

#[test]
fn a_pooled_connection_that_died_costs_nothing() {
    local(async {
        let app = app_for(1, |_| ok("once")).await;
        let action = Action::Forward(Box::new(forward("c")));
        let (_, address) = proxy(&http(vec![route(action)], vec![cluster("c", &[app])])).await;
        let mut client = Client::to(address).await;
        for _ in 0..5 {
            assert!(client.ask(&get("/")).await.ends_with("once"));
        }
        let post = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi";
        assert!(client.ask(post).await.ends_with("once"));
    });
}

#[test]
fn a_body_is_sent_again_where_it_is_held() {
    local(async {
        let calls = Rc::new(Cell::new(0));
        let counted = Rc::clone(&calls);
        let app = app(move |head| {
            counted.set(counted.get() + 1);
            let body = head.rsplit("\r\n\r\n").next().unwrap_or_default().to_owned();
            let status = if counted.get() < 3 { "503 No" } else { "200 OK" };
            format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        })
        .await;
        let policy = Retry { on: vec!["5xx".into()], ..retry() };
        let action = Action::Forward(Box::new(Forward { retry: Some(policy), ..forward("c") }));
        let (proxy, address) = proxy(&http(vec![route(action)], vec![cluster("c", &[app])])).await;
        let reply = ask(address, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello").await;
        assert!(reply.starts_with("HTTP/1.1 200 ") && reply.ends_with("hello"), "{reply}");
        assert_eq!(calls.get(), 3);
        let retries = proxy.worker.shared.tables.load().clusters().map(|c| c.live.stats.retries.get()).sum::<u64>();
        assert_eq!(retries, 1, "one request that is retried counts once");
    });
}

#[test]
fn redirects_replies_rewrites_and_header_changes() {
    local(async {
        let app = app(ok).await;
        let matching = |prefix: &str, action| Route {
            matches: RouteMatch { path: PathMatch::Prefix(prefix.into()), ..RouteMatch::default() },
            ..route(action)
        };
        let changed = HeaderChanges {
            request: HeaderOps {
                set: vec![
                    ("x-set".into(), "1".into()),
                    ("x-from".into(), "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%".into()),
                ],
                remove: vec!["x-gone".into()],
                ..HeaderOps::default()
            },
            response: HeaderOps { add: vec![("x-added".into(), "2".into())], ..HeaderOps::default() },
        };
        let rewritten = Forward {
            path: Some(PathRewrite::Prefix("/new".into())),
            authority: Some("b.test".into()),
            ..forward("c")
        };
        let routes = vec![
            matching(
                "/moved",
                Action::Redirect(Redirect { status: 301, path: Some("/there".into()), ..Redirect::default() }),
            ),
            matching("/fixed", Action::Reply { status: 418, body: "teapot".into() }),
            Route { headers: changed, ..matching("/old", Action::Forward(Box::new(rewritten))) },
        ];
        let (_, address) = proxy(&http(routes, vec![cluster("c", &[app])])).await;
        let moved = ask(address, &get("/moved")).await;
        assert!(moved.starts_with("HTTP/1.1 301 ") && moved.contains("location: http://a.test/there\r\n"), "{moved}");
        let fixed = ask(address, &get("/fixed")).await;
        assert!(fixed.starts_with("HTTP/1.1 418 ") && fixed.ends_with("teapot"), "{fixed}");
        let old = ask(address, "GET /old/x?q HTTP/1.1\r\nhost: a.test\r\nx-gone: 1\r\n\r\n").await;
        let (head, seen) = old.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("x-added: 2"), "{head}");
        assert!(seen.starts_with("GET /new/x?q HTTP/1.1\r\n"), "{seen}");
        for part in ["host: b.test\r\n", "x-set: 1\r\n", "x-from: 127.0.0.1\r\n", "x-envoy-original-path: /old/x?q\r\n"]
        {
            assert!(seen.contains(part), "{part} in {seen}");
        }
        assert!(!seen.contains("x-gone"), "{seen}");
    });
}

#[test]
fn a_late_reply_is_given_up_and_told() {
    local(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent = listener.local_addr().unwrap();
        let short = Forward { timeout: Some(Duration::from_millis(20)), ..forward("c") };
        let (proxy, address) =
            proxy(&http(vec![route(Action::Forward(Box::new(short)))], vec![cluster("c", &[silent])])).await;
        let reply = ask(address, &get("/")).await;
        assert!(reply.starts_with("HTTP/1.1 504 ") && reply.ends_with("upstream request timeout"), "{reply}");
        assert!(proxy.metrics().contains("response_flags=\"UT\""));
        drop(listener);
    });
}

#[test]
fn a_try_that_takes_too_long_makes_way_for_another() {
    local(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent = listener.local_addr().unwrap();
        let quick = app(|head| ok(head.rsplit("\r\n\r\n").next().unwrap_or_default())).await;
        let policy = Retry { on: vec!["5xx".into()], per_try_timeout: Some(Duration::from_millis(20)), ..retry() };
        let patient = Forward { retry: Some(policy), timeout: Some(Duration::from_secs(5)), ..forward("c") };
        let clusters = vec![cluster("c", &[silent, quick])];
        let (_, address) = proxy(&http(vec![route(Action::Forward(Box::new(patient)))], clusters)).await;
        let reply = ask(address, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello").await;
        assert!(reply.starts_with("HTTP/1.1 200 ") && reply.ends_with("hello"), "{reply}");
        drop(listener);
    });
}

#[test]
fn faults_are_injected() {
    local(async {
        let fault = Fault { delay: None, abort: Some((AbortWith::Http(555), Percent::ALL)) };
        let rule = Route { fault: Some(fault), ..route(Action::Forward(Box::new(forward("c")))) };
        let (_, address) = proxy(&http(vec![rule], vec![cluster("c", &[nobody().await])])).await;
        let reply = ask(address, &get("/")).await;
        assert!(reply.starts_with("HTTP/1.1 555 ") && reply.ends_with("fault filter abort"), "{reply}");
    });
}

#[test]
fn past_the_breakers_requests_are_refused_at_once() {
    local(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent = listener.local_addr().unwrap();
        let tight = Cluster {
            breakers: Breakers { connections: 1, pending: 1, ..Breakers::default() },
            ..cluster("c", &[silent])
        };
        let (_, address) = proxy(&http(vec![route(Action::Forward(Box::new(forward("c"))))], vec![tight])).await;
        let mut first = Client::to(address).await;
        first.send(&get("/1")).await;
        let (mut upstream, _) = listener.accept().await.unwrap();
        let mut buf = [0; 1024];
        assert!(upstream.read(&mut buf).await.unwrap() > 0);
        let mut second = Client::to(address).await;
        second.send(&get("/2")).await;
        // The second waits for the only connection, so the third is one too many: whichever of the two comes later.
        let mut third = Client::to(address).await;
        third.send(&get("/3")).await;
        let reply = tokio::select! { reply = second.reply() => reply, reply = third.reply() => reply };
        assert!(reply.contains("x-envoy-overloaded: true\r\n") && reply.ends_with("reset reason: overflow"), "{reply}");
        upstream.write_all(ok("done").as_bytes()).await.unwrap();
        assert!(first.reply().await.ends_with("done"));
    });
}

#[test]
fn a_kept_connection_sees_a_new_table_at_once() {
    local(async {
        let (one, two) = (app(|_| ok("one")).await, app(|_| ok("two")).await);
        let (mut proxy, address) = proxy(&to(&[one])).await;
        let mut client = Client::to(address).await;
        assert!(client.ask(&get("/")).await.ends_with("one"));
        assert!(proxy.apply(&to(&[two])).is_empty());
        assert!(client.ask(&get("/")).await.ends_with("two"));
        proxy.worker.shared.phase.send_replace(Phase::Draining);
        assert!(client.ask(&get("/")).await.contains("connection: close\r\n"));
    });
}

#[test]
fn two_hosts_or_none_are_refused() {
    local(async {
        let (_, address) = proxy(&to(&[nobody().await])).await;
        for bad in [
            "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a/b\r\n\r\n",
            "GET /%00 HTTP/1.1\r\nhost: a\r\n\r\n",
        ] {
            let reply = ask(address, bad).await;
            assert!(reply.starts_with("HTTP/1.1 400 "), "{bad:?}: {reply}");
        }
    });
}

#[test]
fn a_websocket_passes() {
    local(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = listener.local_addr().unwrap();
        tokio::task::spawn_local(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut buf = [0; 4096];
            let count = socket.read(&mut buf).await.unwrap();
            let head = String::from_utf8_lossy(&buf[..count]).to_ascii_lowercase();
            assert!(head.contains("connection: upgrade") && head.contains("upgrade: websocket"), "{head}");
            let agreed = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
            socket.write_all(agreed.as_bytes()).await.unwrap();
            let count = socket.read(&mut buf).await.unwrap();
            socket.write_all(&buf[..count]).await.unwrap();
        });
        let (_, address) = proxy(&to(&[upstream])).await;
        let mut client = Client::to(address).await;
        let reply =
            client.ask("GET /ws HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n").await;
        assert!(
            reply.starts_with("HTTP/1.1 101 ") && reply.to_ascii_lowercase().contains("upgrade: websocket"),
            "{reply}"
        );
        client.send("ping").await;
        assert_eq!(client.rest().await, "ping");
    });
}

#[test]
fn a_broken_websocket_is_counted_as_far_as_it_came() {
    local(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = listener.local_addr().unwrap();
        let file = std::env::temp_dir().join(format!("proxy-log-ws-{}", std::process::id()));
        let format = Some("%RESPONSE_CODE% %BYTES_RECEIVED% %BYTES_SENT%\n".into());
        let log = AccessLog { path: file.to_string_lossy().into_owned(), format, json: false };
        let logged =
            HttpServer { access_log: Some(log), ..server(vec![route(Action::Forward(Box::new(forward("c"))))]) };
        let spec = spec(listener_of(logged), vec![cluster("c", &[upstream])]);
        let (proxy, address) = proxy(&spec).await;
        let mut client = Client::to(address).await;
        client.send("GET /ws HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n").await;
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut buf = [0; 4096];
        assert!(socket.read(&mut buf).await.unwrap() > 0);
        let agreed = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
        socket.write_all(agreed.as_bytes()).await.unwrap();
        assert!(client.reply().await.starts_with("HTTP/1.1 101 "));
        client.send("ping").await;
        socket.read_exact(&mut buf[..4]).await.unwrap();
        socket.write_all(b"pong!").await.unwrap();
        client.0.read_exact(&mut buf[..5]).await.unwrap();
        socket2::SockRef::from(&client.0).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        assert_eq!(socket.read(&mut buf).await.unwrap_or(0), 0);
        assert_eq!(line(&proxy, &file).await, "101 4 5\n");
    });
}

fn listener_of(server: HttpServer) -> Listener {
    listener(chain(Network::Http(Box::new(server))))
}

/// What has been written to a log, after the last connection.
async fn line(proxy: &Proxy, file: &std::path::Path) -> String {
    proxy.worker.finish().await;
    proxy.worker.lines.flush(&proxy.worker);
    let text = loop {
        match std::fs::read_to_string(file) {
            Ok(text) if !text.is_empty() => break text,
            _ => tokio::task::yield_now().await,
        }
    };
    std::fs::remove_file(file).unwrap();
    text
}

#[test]
fn a_finished_request_leaves_a_line() {
    local(async {
        let file = std::env::temp_dir().join(format!("proxy-log-{}", std::process::id()));
        let app = app(|_| ok("x")).await;
        let log = AccessLog {
            path: file.to_string_lossy().into_owned(),
            format: Some("%REQ(:METHOD)% %REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %UPSTREAM_CLUSTER% %ROUTE_NAME% %BYTES_SENT%\n".into()),
            json: false,
        };
        let logged =
            HttpServer { access_log: Some(log), ..server(vec![route(Action::Forward(Box::new(forward("c"))))]) };
        let (proxy, address) = proxy(&spec(listener_of(logged), vec![cluster("c", &[app])])).await;
        assert!(ask(address, &get("/a")).await.ends_with('x'));
        assert_eq!(line(&proxy, &file).await, "GET /a 200 - c rule 1\n");
    });
}

#[test]
fn a_listener_with_a_bad_part_is_told_and_the_rest_serves() {
    local(async {
        let mut bad = to(&[]);
        let log = AccessLog { path: "/dev/null".into(), format: Some("%NOPE%".into()), json: false };
        let logged = HttpServer { access_log: Some(log), ..server(vec![]) };
        let other = Listener { name: "bad".into(), ..listener_of(logged) };
        bad.listeners.insert("bad".into(), Arc::new(other));
        let mut proxy = Proxy::new(api_rt::identity::Identity::new());
        let faults = proxy.apply(&bad);
        assert_eq!(faults.len(), 1);
        assert_eq!((faults[0].0, faults[0].1.as_str()), (ResourceKind::Listener, "bad"));
        let address = proxy.listen("l").await;
        assert!(ask(address, &get("/")).await.ends_with("no healthy upstream"));
    });
}
