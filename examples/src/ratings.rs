//! Bookinfo's ratings: stars by reviewer.
//!
//! Kept in memory; a POST replaces those of a product. Never here: reviews. Called by reviews v2 and v3.

use std::{collections::BTreeMap, sync::Mutex};

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::app::{Answer, App, Ask, json as reply, text};

const PRODUCTS_MAX: usize = 1000;

/// The service.
#[derive(Default)]
pub(crate) struct Ratings {
    posted: Mutex<BTreeMap<u32, Value>>,
}

impl App for Ratings {
    async fn answer(&self, ask: Ask) -> Answer {
        let path = ask.uri().path();
        if path == "/health" {
            return reply(StatusCode::OK, &json!({"status": "Ratings is healthy"}));
        }
        let Some(id) = path.strip_prefix("/ratings/") else {
            return text(StatusCode::NOT_FOUND, "not found\n");
        };
        let Ok(id) = id.parse::<u32>() else {
            return reply(StatusCode::BAD_REQUEST, &json!({"error": "please provide numeric product ID"}));
        };
        let mut posted = self.posted.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if *ask.method() == Method::POST {
            let Ok(ratings @ Value::Object(_)) = serde_json::from_slice(ask.body()) else {
                return reply(StatusCode::BAD_REQUEST, &json!({"error": "please provide valid ratings JSON"}));
            };
            if posted.len() >= PRODUCTS_MAX && !posted.contains_key(&id) {
                return reply(StatusCode::INSUFFICIENT_STORAGE, &json!({"error": "too many products"}));
            }
            posted.insert(id, ratings);
        }
        let stars = posted.get(&id).cloned().unwrap_or_else(|| json!({"Reviewer1": 5, "Reviewer2": 4}));
        reply(StatusCode::OK, &json!({"id": id, "ratings": stars}))
    }
}
