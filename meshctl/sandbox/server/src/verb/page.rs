//! Lists in pages (`limit`, `continue`) and as they were at an earlier `resourceVersion`.
//!
//! All pages of a list show the collection as it was when the first was asked for. Where the history no longer reaches
//! back so far, the client is told 410 and a token to go on without that promise, as the real server does.
//! Never here: which objects a selector means, how they are shown. Called by `read`.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Call;
use super::read::{self, Selection};
use crate::core::Core;
use crate::reply::{Cause, Refusal};
use crate::store::Item;

/// Some objects of a collection.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) items: Vec<Arc<Item>>,
    /// The list's `metadata`.
    pub(crate) metadata: Value,
}

/// Where a list goes on; the client gets it as text that means nothing to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Token {
    v: String,
    /// The list's revision; none: whatever there is by then.
    rv: Option<u64>,
    namespace: String,
    name: String,
}

const TOKEN_VERSION: &str = "meta.k8s.io/v1";

impl Token {
    fn after(item: &Item, rv: Option<u64>) -> Self {
        Self { v: TOKEN_VERSION.to_owned(), rv, namespace: item.namespace.to_string(), name: item.name.to_string() }
    }

    fn text(&self) -> String {
        URL_SAFE_NO_PAD.encode(json!(self).to_string())
    }

    fn parse(text: &str) -> Result<Self, Refusal> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok();
        let token: Option<Self> = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        token.filter(|token| token.v == TOKEN_VERSION).ok_or_else(|| Refusal::bad_request("continue key is not valid"))
    }

    /// Whether the object stood on an earlier page.
    fn covers(&self, item: &Item) -> bool {
        (&*item.namespace, &*item.name) <= (&self.namespace, &self.name)
    }
}

/// The page that the request asks for.
pub(crate) fn of(core: &Core, call: &Call, selection: &Selection) -> Result<Page, Refusal> {
    let limit = limit(call)?;
    let token = call.query.filled("continue").map(Token::parse).transpose()?;
    let (items, revision) = snapshot(core, call, selection, token.as_ref(), limit)?;
    let is_seen = |item: &Arc<Item>| token.as_ref().is_some_and(|token| token.covers(item));
    let mut wanted = items.into_iter().skip_while(is_seen).filter(|item| selection.matches(item));
    let items: Vec<_> = wanted.by_ref().take(limit.unwrap_or(usize::MAX)).collect();
    // How many are left is told only where counting them needs no selector.
    let left = if selection.is_whole() { wanted.count() } else { usize::from(wanted.next().is_some()) };
    let mut metadata = json!({ "resourceVersion": revision.to_string() });
    if let (Some(last), 1..) = (items.last(), left) {
        metadata["continue"] = Token::after(last, Some(revision)).text().into();
        if selection.is_whole() {
            metadata["remainingItemCount"] = left.into();
        }
    }
    Ok(Page { items, metadata })
}

/// How many objects a page may have; none: all.
fn limit(call: &Call) -> Result<Option<usize>, Refusal> {
    let Some(text) = call.query.filled("limit") else { return Ok(None) };
    let limit: i64 = text
        .parse()
        .map_err(|_| Refusal::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")))?;
    Ok(usize::try_from(limit).ok().filter(|limit| *limit > 0))
}

/// The collection as it was at the moment that is asked for.
fn snapshot(
    core: &Core,
    call: &Call,
    selection: &Selection,
    token: Option<&Token>,
    limit: Option<usize>,
) -> Result<(Vec<Arc<Item>>, u64), Refusal> {
    let storage = &call.target.kind.storage;
    let named = call.query.filled("resourceVersion");
    let is_exact = is_exact(call, limit)?;
    let at = match (token, named) {
        (Some(_), Some(text)) if text != "0" => {
            return Err(Refusal::bad_request("specifying resource version is not allowed when using continue"));
        }
        (Some(token), _) => token.rv,
        (None, named) => Some(read::revision(core, named)?).filter(|_| is_exact),
    };
    let Some(at) = at else { return Ok(core.store.list(storage, selection.namespace())) };
    match (core.store.list_at(storage, selection.namespace(), at), token) {
        (Some(items), _) => Ok((items, at)),
        (None, None) => Err(Refusal::new(410, "Expired", "The resourceVersion for the provided list is too old.")),
        (None, Some(token)) => {
            let mut refusal = Refusal::new(410, "Expired", TOO_OLD);
            refusal.go_on = Some(Token { rv: None, ..token.clone() }.text());
            Err(refusal)
        }
    }
}

const TOO_OLD: &str = "The provided continue parameter is too old to display a consistent list result. You can start a \
    new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the \
    results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or \
    deleted between the time the first chunk was returned and now may show up in the list.";

/// Whether the very revision that is named is asked for, not a newer one.
fn is_exact(call: &Call, limit: Option<usize>) -> Result<bool, Refusal> {
    let named = call.query.filled("resourceVersion");
    let forbidden = |text: &str| Err(refused(Cause::forbidden("resourceVersionMatch", text)));
    let Some(mode) = call.query.filled("resourceVersionMatch") else {
        // The first page of a list that names a revision is of that revision.
        return Ok(limit.is_some() && named.is_some_and(|text| text != "0"));
    };
    if named.is_none() {
        return forbidden("resourceVersionMatch is forbidden unless resourceVersion is provided");
    }
    if call.query.filled("continue").is_some() {
        return forbidden("resourceVersionMatch is forbidden when continue is provided");
    }
    match (mode, named) {
        ("Exact", Some("0")) => forbidden("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""),
        ("Exact", _) => Ok(true),
        ("NotOlderThan", _) => Ok(false),
        (mode, _) => {
            let known = ["Exact", "NotOlderThan", ""];
            Err(refused(Cause::unsupported("resourceVersionMatch", &mode.into(), &known)))
        }
    }
}

fn refused(cause: Cause) -> Refusal {
    Refusal::invalid_as("ListOptions", "meta.k8s.io", "", &[cause])
}
