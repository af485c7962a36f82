//! Bookinfo's details: facts about a book.
//!
//! Never here: calls to other services (v2's outside source is not asked). Called by productpage.

use http::StatusCode;
use serde_json::json;

use crate::app::{Answer, App, Ask, json as reply, text};

/// The service.
pub(crate) struct Details {
    /// `v1` or `v2`.
    pub(crate) version: String,
}

impl App for Details {
    async fn answer(&self, ask: Ask) -> Answer {
        let path = ask.uri().path();
        if path == "/health" {
            return reply(StatusCode::OK, &json!({"status": "Details is healthy"}));
        }
        let Some(id) = path.strip_prefix("/details/") else {
            return text(StatusCode::NOT_FOUND, "not found\n");
        };
        let Ok(id) = id.parse::<u32>() else {
            return reply(StatusCode::BAD_REQUEST, &json!({"error": "please provide numeric product id"}));
        };
        reply(
            StatusCode::OK,
            &json!({
                "id": id, "author": "William Shakespeare", "year": 1595, "type": "paperback",
                "pages": if self.version == "v2" { 208 } else { 200 },
                "publisher": "PublisherA", "language": "English", "ISBN-10": "1234567890", "ISBN-13": "123-1234567890",
            }),
        )
    }
}
