//! A clock that someone sets while requests are under way: what the access log tells.
//!
//! Never here: certificates (`api_rt::identity`). Run by `cargo test`.

use std::time::{Duration, SystemTime};

use api::spec::*;
use api_rt::{
    clock::{Clock, Jump},
    identity::Identity,
};

use super::{
    Client, Proxy, app,
    bytes::{pass, paused},
    ok,
    spec::{chain, cluster, forward, listener, route, server, spec},
};

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// An hour forth and, later, back.
const JUMPS: &[Jump] = &[Jump { after: secs(100), seconds: 3600 }, Jump { after: secs(200), seconds: -3600 }];

#[test]
fn a_request_takes_as_long_as_it_takes_when_the_clock_is_set() {
    paused(async {
        let file = std::env::temp_dir().join(format!("proxy-clock-{}", std::process::id()));
        let app = app(|_| ok("x")).await;
        let format = "%DURATION% %START_TIME(%H:%M)%\n";
        let log = AccessLog { path: file.to_string_lossy().into_owned(), format: Some(format.to_owned()), json: false };
        let logged =
            HttpServer { access_log: Some(log), ..server(vec![route(Action::Forward(Box::new(forward("c"))))]) };
        // At noon.
        let clock = Clock::jumping(SystemTime::UNIX_EPOCH + secs(12 * 3600), JUMPS);
        let mut proxy = Proxy::by(Identity::new(), clock);
        let faults = proxy.apply(&spec(listener(chain(Network::Http(Box::new(logged)))), vec![cluster("c", &[app])]));
        assert!(faults.is_empty(), "{faults:?}");
        let address = proxy.listen("l").await;
        // The last one begins in the hour that is taken back.
        for length in [secs(60), secs(60), secs(120)] {
            let mut client = Client::to(address).await;
            client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\nconnection: close\r\n\r\nh").await;
            while proxy.worker.shared.stats.downstream_requests.get() == 0 {
                tokio::task::yield_now().await;
            }
            pass(length).await;
            client.send("i").await;
            assert!(client.rest().await.ends_with('x'));
        }
        proxy.worker.finish().await;
        proxy.worker.lines.flush(&proxy.worker);
        let text = loop {
            match std::fs::read_to_string(&file) {
                Ok(text) if text.lines().count() == 3 => break text,
                _ => tokio::task::yield_now().await,
            }
        };
        std::fs::remove_file(&file).unwrap();
        let lines: Vec<(u64, &str)> = text
            .lines()
            .map(|line| line.split_once(' ').unwrap())
            .map(|(took, began)| (took.parse::<u64>().unwrap() / 10_000, began))
            .collect();
        // Tens of seconds, and the beginning by the clock as it stood at the end.
        assert_eq!(lines, [(6, "12:00"), (6, "13:01"), (12, "12:02")], "{text}");
    });
}
