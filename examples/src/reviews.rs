//! Bookinfo's reviews: v1 without stars, v2 with black ones, v3 with red ones.
//!
//! Asks ratings where it shows stars; says so in the reply when ratings does not answer. Never here: the page.
//! Called by productpage.

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::app::{Answer, App, Ask, call, env, hostname, json as reply, passed_on, text};

/// The service.
pub(crate) struct Reviews {
    stars: Option<&'static str>,
    ratings_host: String,
    ratings_port: u16,
}

impl Reviews {
    /// By version, and where ratings is.
    pub(crate) fn from_env(version: &str) -> Self {
        let stars = match version {
            "v2" => Some("black"),
            "v3" => Some("red"),
            _ => None,
        };
        let domain = env("SERVICES_DOMAIN").map_or_else(String::new, |domain| format!(".{domain}"));
        Self {
            stars,
            ratings_host: env("RATINGS_HOSTNAME").unwrap_or_else(|| "ratings".to_owned()) + &domain,
            ratings_port: env("RATINGS_SERVICE_PORT").and_then(|port| port.parse().ok()).unwrap_or(9080),
        }
    }

    async fn ratings(&self, ask: &Ask, id: u32) -> Option<Value> {
        let path = format!("/ratings/{id}");
        let answer =
            call(Method::GET, &self.ratings_host, self.ratings_port, &path, passed_on(ask.headers()), Bytes::new());
        match answer.await {
            Ok((StatusCode::OK, body)) => serde_json::from_slice::<Value>(&body).ok()?.get("ratings").cloned(),
            Ok((status, _)) => {
                eprintln!("ratings answered {status}");
                None
            }
            Err(error) => {
                eprintln!("ratings: {error}");
                None
            }
        }
    }
}

impl App for Reviews {
    async fn answer(&self, ask: Ask) -> Answer {
        let path = ask.uri().path();
        if path == "/health" {
            return reply(StatusCode::OK, &json!({"status": "Reviews is healthy"}));
        }
        let Some(Ok(id)) = path.strip_prefix("/reviews/").map(str::parse::<u32>) else {
            return text(StatusCode::NOT_FOUND, "not found\n");
        };
        let rated = match self.stars {
            Some(_) => self.ratings(&ask, id).await,
            None => None,
        };
        let review = |reviewer: &str, words: &str| {
            let mut review = json!({"reviewer": reviewer, "text": words});
            if let Some(color) = self.stars {
                review["rating"] = match rated.as_ref().and_then(|rated| rated.get(reviewer)) {
                    Some(stars) => json!({"stars": stars, "color": color}),
                    None => json!({"error": "Ratings service is currently unavailable"}),
                };
            }
            review
        };
        reply(
            StatusCode::OK,
            &json!({
                "id": id.to_string(), "podname": hostname(), "clustername": "null",
                "reviews": [
                    review("Reviewer1", "Two pairs of twins, one town, and nobody asks the obvious question. I laughed all the way through."),
                    review("Reviewer2", "Short, loud and kind at the end. Read it aloud with friends and swap the parts."),
                ],
            }),
        )
    }
}
