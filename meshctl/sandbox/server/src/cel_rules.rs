//! CEL: the functions Kubernetes adds, and JSON → CEL values.
//!
//! Never here: which rules there are. Called by `crd::rules` and by webhooks' match conditions.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use cel::extractors::This;
use cel::objects::{Key, Map};
use cel::{Context, Env, ExecutionError, Program, Value as Cel, extensions};
use serde_json::Value;

use crate::crd::schema::Structural;

/// The standard library with strings, as Kubernetes has it.
static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    if let Err(error) = env.add_extension(extensions::strings) {
        tracing::error!(%error, "CEL's string functions are not available");
    }
    Arc::new(env)
});

pub(crate) fn compile(source: &str) -> Result<Program, String> {
    ENV.compile(source).map_err(|errors| errors.to_string())
}

/// A context with the functions of Kubernetes' URL and IP libraries.
fn context<'v>() -> Context<'v, 'v> {
    let mut context = Context::with_env(Arc::clone(&ENV));
    let added = [
        context.add_function("isURL", |text: Arc<String>| scheme(&text).is_some()),
        context.add_function("url", |text: Arc<String>| -> Result<Cel, ExecutionError> {
            match scheme(&text) {
                Some(_) => Ok(Cel::String(text)),
                None => Err(ExecutionError::function_error(
                    "url",
                    format!("URL parse error during conversion from string: {text:?}"),
                )),
            }
        }),
        context.add_function("getScheme", |This(text): This<Arc<String>>| scheme(&text).unwrap_or_default().to_owned()),
        context.add_function("getHost", |This(text): This<Arc<String>>| {
            text.parse::<http::Uri>().ok().and_then(|uri| uri.authority().map(ToString::to_string)).unwrap_or_default()
        }),
        context.add_function("getHostname", |This(text): This<Arc<String>>| {
            text.parse::<http::Uri>().ok().and_then(|uri| uri.host().map(str::to_owned)).unwrap_or_default()
        }),
        context.add_function("isIP", |text: Arc<String>| text.parse::<std::net::IpAddr>().is_ok()),
        context.add_function("isCIDR", |text: Arc<String>| text.parse::<ipnet::IpNet>().is_ok()),
    ];
    for error in added.into_iter().filter_map(Result::err) {
        // A later release of the crate may bring one of them itself.
        tracing::debug!(%error, "CEL function exists");
    }
    context
}

/// The scheme of an absolute URL; "" for an absolute path, which Go's parser takes too.
fn scheme(text: &str) -> Option<&str> {
    if text.starts_with('/') {
        return Some("");
    }
    let (scheme, rest) = text.split_once("://")?;
    let fits = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
        && !rest.contains(char::is_whitespace);
    fits.then_some(scheme)
}

/// Runs a compiled rule.
pub(crate) fn run(program: &Program, variables: Vec<(&str, Cel)>) -> Result<Cel, String> {
    let mut context = context();
    for (name, value) in variables {
        context.add_variable_from_value(name, value);
    }
    program.execute(&context).map_err(|error| error.to_string())
}

/// Whether an expression over plain JSON is true, or why nobody can say.
pub(crate) fn condition(source: &str, variables: &[(&str, Value)]) -> Result<bool, String> {
    let program = compile(source)?;
    let variables = variables.iter().map(|(name, value)| (*name, plain(value))).collect();
    let found = run(&program, variables)?;
    if let Cel::Bool(truth) = found { Ok(truth) } else { Err(format!("expected bool, got {}", found.type_of())) }
}

fn map(entries: impl Iterator<Item = (String, Cel)>) -> Cel {
    let map: HashMap<Key, Cel> = entries.map(|(name, value)| (Key::String(Arc::new(name)), value)).collect();
    Cel::Map(Map { map: Arc::new(map) })
}

/// JSON without a schema.
pub(crate) fn plain(value: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(value) => Cel::Bool(*value),
        Value::Number(number) => {
            number.as_i64().map_or_else(|| Cel::Float(number.as_f64().unwrap_or_default()), Cel::Int)
        }
        Value::String(text) => Cel::String(Arc::new(text.clone())),
        Value::Array(items) => Cel::List(Arc::new(items.iter().map(plain).collect())),
        Value::Object(members) => map(members.iter().map(|(name, value)| (name.clone(), plain(value)))),
    }
}

/// JSON as its schema types it: properties are escaped, numbers are doubles where the schema says so.
pub(crate) fn typed(schema: &Structural, value: &Value) -> Cel {
    match value {
        Value::Number(number) if schema.kind == "number" => Cel::Float(number.as_f64().unwrap_or_default()),
        Value::Array(items) => match &schema.items {
            Some(inner) => Cel::List(Arc::new(items.iter().map(|item| typed(inner, item)).collect())),
            None => plain(value),
        },
        Value::Object(members) => map(members.iter().map(|(name, value)| match schema.property(name) {
            Some(inner) => (escape(name), typed(inner, value)),
            None => (name.clone(), schema.additional().map_or_else(|| plain(value), |inner| typed(inner, value))),
        })),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => plain(value),
    }
}

const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// A property's name as rules write it.
fn escape(name: &str) -> String {
    if RESERVED.contains(&name) {
        return format!("__{name}__");
    }
    name.replace("__", "__underscores__").replace('.', "__dot__").replace('-', "__dash__").replace('/', "__slash__")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(rule: &str, value: Value, want: bool) {
        assert_eq!(condition(rule, &[("self", value)]), Ok(want), "{rule}");
    }

    #[test]
    fn the_functions_that_crds_use() {
        check("self.size() == 2", json!(["a", "b"]), true);
        check("self.all(k, !k.contains('*'))", json!(["a", "b*"]), false);
        check("self.exists_one(k, k == 'a')", json!(["a", "b"]), true);
        check("duration(self) >= duration('1ms')", json!("1s"), true);
        check("self.filter(x, x.startsWith('a')).size() == 1", json!(["ab", "b"]), true);
        check("self.matches('^[a-z]+$') && self.endsWith('c')", json!("abc"), true);
        check("isURL(self) ? url(self).getScheme() in ['http', 'https'] : false", json!("http://x/y"), true);
        check("isIP(self)", json!("10.0.0.1"), true);
        check("self.split('/')[1].substring(0, 1) == 'b'", json!("a/bc"), true);
        check("int(self) > 3", json!("4"), true);
        check("has(self.a) && !has(self.b)", json!({"a": 1}), true);
        check("(has(self.a) ? 1 : 0) + (has(self.b) ? 1 : 0) <= 1", json!({"a": 1, "b": 2}), false);
        check("self == r\"\"\"a\\b\"\"\"", json!("a\\b"), true);
    }
}
