//! YAML as Kubernetes users write it: several documents in one text, each with the line it begins on.
//!
//! Never here: which kinds exist. Called by the folder source, and by `meshctl` for `-f`.

use serde_json::Value;

/// Largest text that is read, bytes.
const LARGEST_TEXT: usize = 32 << 20;

/// One document.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Line of its first word, from 1.
    pub line: usize,
    /// What it holds.
    pub value: Value,
}

/// Why a text is not YAML.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct YamlError {
    /// Where, from 1.
    pub line: usize,
    /// What is wrong.
    pub reason: String,
}

/// The texts between the `---` lines, with the line each begins on.
fn split(text: &str) -> Vec<(usize, String)> {
    let mut parts = Vec::new();
    let (mut from, mut lines) = (1, String::new());
    for (index, line) in text.lines().enumerate() {
        let marker = line.strip_prefix("---").filter(|rest| rest.is_empty() || rest.starts_with([' ', '\t']));
        match marker {
            Some(rest) => {
                parts.push((from, std::mem::take(&mut lines)));
                from = index + 1;
                // What follows the marker on its line belongs to the document.
                lines.push_str(if rest.trim_start().starts_with('#') { "" } else { rest.trim_start() });
            }
            None if line.trim_end() == "..." => continue,
            None => lines.push_str(line),
        }
        lines.push('\n');
    }
    parts.push((from, lines));
    parts
}

fn is_blank(text: &str) -> bool {
    text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#') || line.starts_with('%'))
}

/// Reads one document that begins on this line of its text.
fn one(from: usize, text: &str) -> Result<Document, YamlError> {
    let line = from + text.lines().take_while(|line| is_blank(line)).count();
    match serde_saphyr::from_str::<Value>(text) {
        Ok(value) => Ok(Document { line, value }),
        Err(error) => {
            let at = error.location().and_then(|place| usize::try_from(place.line()).ok()).unwrap_or(1);
            let reason = error.without_snippet().to_string();
            Err(YamlError {
                line: from + at.saturating_sub(1),
                reason: reason.lines().next().unwrap_or_default().into(),
            })
        }
    }
}

/// Reads all documents of a text; those that are blank are left out, and a `List` becomes its items.
///
/// # Errors
/// The first place that is not YAML.
pub fn documents(text: &str) -> Result<Vec<Document>, YamlError> {
    if text.len() > LARGEST_TEXT {
        return Err(YamlError { line: 1, reason: format!("the text is larger than {LARGEST_TEXT} bytes") });
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut found = Vec::new();
    for (from, part) in split(text).iter().filter(|(_, part)| !is_blank(part)) {
        let document = one(*from, part)?;
        if !document.value.is_null() {
            found.extend(items(document.value).into_iter().map(|value| Document { line: document.line, value }));
        }
    }
    Ok(found)
}

fn items(mut value: Value) -> Vec<Value> {
    let is_list = value.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("List"));
    match value.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) if is_list => items,
        Some(other) => {
            value["items"] = other;
            vec![value]
        }
        None => vec![value],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_know_their_line() {
        let text = "# licence\napiVersion: v1\nkind: A\n---\n\n# nothing\n---\nkind: B # b\n--- # c\nkind: C\n";
        let found = documents(text).unwrap();
        let lines: Vec<(usize, &str)> = found.iter().map(|d| (d.line, d.value["kind"].as_str().unwrap())).collect();
        assert_eq!(lines, [(2, "A"), (8, "B"), (10, "C")]);
    }

    #[test]
    fn an_error_names_the_line_of_the_whole_text() {
        let error = documents("kind: A\n---\nkind: B\nspec: [1, 2\nmore: {\n").unwrap_err();
        assert!(error.line >= 4, "{error}");
        assert_eq!(documents("a: 1\n---\nb: 1\nb: 2\n").unwrap_err().line, 4);
    }

    #[test]
    fn a_list_becomes_its_items() {
        let found = documents("kind: List\nitems:\n- kind: A\n- kind: B\n").unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(documents("kind: A\nitems: 3\n").unwrap()[0].value["items"], 3);
    }

    #[test]
    fn three_dashes_within_a_block_of_text_are_text() {
        let found = documents("kind: A\ntext: |\n  ---\n  x\n").unwrap();
        assert_eq!(found[0].value["text"], "---\nx\n");
    }
}
