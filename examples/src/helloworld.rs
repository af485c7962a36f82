//! helloworld: says its version and where it runs.
//!
//! Never here: anything but `/hello` and `/health`. Run as `helloworld-v1` and `helloworld-v2`.

use http::StatusCode;

use crate::app::{Answer, App, Ask, hostname, text};

/// The service.
pub(crate) struct Helloworld {
    /// `v1` or `v2`.
    pub(crate) version: String,
}

impl App for Helloworld {
    async fn answer(&self, ask: Ask) -> Answer {
        match ask.uri().path() {
            "/hello" => text(StatusCode::OK, &format!("Hello version: {}, instance: {}\n", self.version, hostname())),
            "/health" => text(StatusCode::OK, "Helloworld is healthy"),
            _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
        }
    }
}
