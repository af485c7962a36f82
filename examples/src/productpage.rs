//! Bookinfo's front: the page of one book, with login.
//!
//! Asks details and reviews for every page and passes the tracing headers and the user's name on.
//! Never here: a mesh. Shows what failed where a service does not answer.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};

use crate::app::{Answer, App, Ask, call, env, json as reply, passed_on, reply as typed, text};

const PAGE: &str = include_str!("productpage.html");
const STYLE: &str = include_str!("productpage.css");
const TITLE: &str = "The Comedy of Errors";
const SUMMARY: &str = "Two sets of identical twins, parted by a storm, meet in Ephesus without knowing it: one of \
                       Shakespeare's earliest plays, and among his shortest.";
const COOKIE: &str = "bookinfo_user=";

struct Service {
    host: String,
    port: u16,
}

/// The service.
pub(crate) struct Productpage {
    details: Service,
    reviews: Service,
    ratings: Service,
}

impl Productpage {
    /// Where the other services are.
    pub(crate) fn from_env() -> Self {
        let domain = env("SERVICES_DOMAIN").map_or_else(String::new, |domain| format!(".{domain}"));
        let service = |name: &str| Service {
            host: env(&format!("{}_HOSTNAME", name.to_uppercase())).unwrap_or_else(|| name.to_owned()) + &domain,
            port: env(&format!("{}_SERVICE_PORT", name.to_uppercase()))
                .and_then(|port| port.parse().ok())
                .unwrap_or(9080),
        };
        Self { details: service("details"), reviews: service("reviews"), ratings: service("ratings") }
    }

    async fn page(&self, ask: &Ask) -> Answer {
        let user = user(ask.headers());
        let headers = outgoing(ask, user.as_deref());
        let (details, reviews) = tokio::join!(
            fetch(&self.details, "/details/0", headers.clone()),
            fetch(&self.reviews, "/reviews/0", headers)
        );
        let page = PAGE
            .replace("{{title}}", TITLE)
            .replace("{{summary}}", SUMMARY)
            .replace("{{user}}", &login(user.as_deref()))
            .replace("{{details}}", &details_html(&details))
            .replace("{{reviews}}", &reviews_html(&reviews));
        typed(StatusCode::OK, "text/html; charset=utf-8", page)
    }

    async fn api(&self, ask: &Ask, rest: &[&str]) -> Answer {
        let headers = outgoing(ask, user(ask.headers()).as_deref());
        let (service, name, id) = match rest {
            [] => return reply(StatusCode::OK, &json!([{"id": 0, "title": TITLE, "descriptionHtml": SUMMARY}])),
            [id] => (&self.details, "details", id),
            [id, "reviews"] => (&self.reviews, "reviews", id),
            [id, "ratings"] => (&self.ratings, "ratings", id),
            _ => return text(StatusCode::NOT_FOUND, "not found\n"),
        };
        match fetch(service, &format!("/{name}/{id}"), headers).await {
            Ok(value) => reply(StatusCode::OK, &value),
            Err((status, error)) => reply(status, &json!({"error": error})),
        }
    }
}

impl App for Productpage {
    async fn answer(&self, ask: Ask) -> Answer {
        let path = ask.uri().path().to_owned();
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        match parts.as_slice() {
            [""] | ["index.html"] => typed(
                StatusCode::OK,
                "text/html; charset=utf-8",
                "<h1>Hello! This is a simple bookstore application</h1><p><a href=\"/productpage\">Normal user</a></p>",
            ),
            ["productpage"] => self.page(&ask).await,
            ["health"] => text(StatusCode::OK, "Product page is healthy"),
            ["login"] if *ask.method() == Method::POST => signed_in(form(ask.body(), "username").as_deref()),
            ["logout"] => signed_in(None),
            ["static", _] => typed(StatusCode::OK, "text/css; charset=utf-8", STYLE),
            ["api", "v1", "products", rest @ ..] => self.api(&ask, rest).await,
            _ => text(StatusCode::NOT_FOUND, "not found\n"),
        }
    }
}

fn outgoing(ask: &Ask, user: Option<&str>) -> HeaderMap {
    let mut headers = passed_on(ask.headers());
    headers.remove(header::COOKIE);
    if let Some(Ok(user)) = user.map(HeaderValue::from_str) {
        headers.insert("end-user", user);
    }
    headers
}

async fn fetch(service: &Service, path: &str, headers: HeaderMap) -> Result<Value, (StatusCode, String)> {
    match call(Method::GET, &service.host, service.port, path, headers, Bytes::new()).await {
        Ok((StatusCode::OK, body)) => {
            serde_json::from_slice(&body).map_err(|error| (StatusCode::BAD_GATEWAY, error.to_string()))
        }
        Ok((status, _)) => Err((status, format!("answered {status}"))),
        Err(error) => Err((StatusCode::BAD_GATEWAY, error)),
    }
}

fn user(headers: &HeaderMap) -> Option<String> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    cookies
        .flat_map(|value| value.split(';'))
        .find_map(|cookie| cookie.trim().strip_prefix(COOKIE))
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
}

fn form(body: &[u8], field: &str) -> Option<String> {
    let body = String::from_utf8_lossy(body);
    let value = body.split('&').find_map(|pair| pair.strip_prefix(field)?.strip_prefix('='))?;
    Some(value.chars().filter(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(*letter)).take(64).collect())
}

fn signed_in(user: Option<&str>) -> Answer {
    let mut answer = typed(StatusCode::FOUND, "text/plain", Bytes::new());
    let cookie = match user {
        Some(user) => format!("{COOKIE}{user}; Path=/; HttpOnly"),
        None => format!("{COOKIE}; Path=/; Max-Age=0"),
    };
    answer.headers_mut().insert(header::LOCATION, HeaderValue::from_static("/productpage"));
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        answer.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    answer
}

fn escape(raw: &str) -> String {
    raw.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn shown(value: &Value) -> String {
    escape(&value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

fn login(user: Option<&str>) -> String {
    match user {
        Some(user) => format!("<span class=\"user\">{}</span> <a href=\"/logout\">sign out</a>", escape(user)),
        None => "<form method=\"post\" action=\"/login\"><input name=\"username\" placeholder=\"User name\"> \
                 <input name=\"passwd\" type=\"password\" placeholder=\"Password\"> <button>Sign in</button></form>"
            .to_owned(),
    }
}

fn details_html(details: &Result<Value, (StatusCode, String)>) -> String {
    match details {
        Ok(details) => {
            let row = |label: &str, field: &str| format!("<dt>{label}:</dt><dd>{}</dd>", shown(&details[field]));
            let rows = [
                row("Type", "type"),
                row("Pages", "pages"),
                row("Publisher", "publisher"),
                row("Language", "language"),
                row("ISBN-10", "ISBN-10"),
                row("ISBN-13", "ISBN-13"),
            ];
            format!("<h2>Book Details</h2><dl>{}</dl>", rows.concat())
        }
        Err(_) => {
            "<h2>Error fetching product details!</h2><p>Sorry, product details are currently unavailable for this \
                   book.</p>"
                .to_owned()
        }
    }
}

fn reviews_html(reviews: &Result<Value, (StatusCode, String)>) -> String {
    let Ok(reviews) = reviews else {
        return "<h2>Error fetching product reviews!</h2><p>Sorry, product reviews are currently unavailable for this \
                book.</p>"
            .to_owned();
    };
    let items = reviews["reviews"].as_array().into_iter().flatten().map(review_html).collect::<String>();
    format!("<h2>Book Reviews</h2>{items}<p>Reviews served by: <u>{}</u></p>", shown(&reviews["podname"]))
}

fn review_html(review: &Value) -> String {
    let rating = &review["rating"];
    let stars = match (rating["stars"].as_u64(), rating["color"].as_str()) {
        (Some(stars), Some(color)) => (0..5)
            .map(|i| {
                format!("<font color=\"{}\">{}</font>", escape(color), if i < stars { "&#9733;" } else { "&#9734;" })
            })
            .collect(),
        _ => rating["error"].as_str().map_or_else(String::new, |error| format!("<i>{}</i>", escape(error))),
    };
    format!(
        "<blockquote><p>&ldquo;{}&rdquo;</p><small>{}</small><div class=\"stars\">{stars}</div></blockquote>",
        shown(&review["text"]),
        shown(&review["reviewer"])
    )
}
