//! Where finished requests and connections are written, and in which form.
//!
//! Never here: writing them. Called by `http`.

use api::spec::{ACCESS_LOG_FIELDS, ACCESS_LOG_LINE, AccessLog};
use envoy_types::pb::{
    envoy::{
        config::{
            accesslog::v3::{self as accesslog, access_log},
            core::v3::{SubstitutionFormatString, substitution_format_string::Format},
        },
        extensions::access_loggers::{
            file::v3::{FileAccessLog, file_access_log::AccessLogFormat},
            stream::v3::{StderrAccessLog, StdoutAccessLog, stderr_access_log, stdout_access_log},
        },
    },
    google::protobuf::{self, value::Kind},
};
use prost::Name;

use super::{DecodeError, In, read};

/// The first log that is a file or a standard stream.
pub(super) fn access_log(
    input: &mut In<'_>,
    path: &str,
    raw: &[accesslog::AccessLog],
) -> Result<Option<AccessLog>, DecodeError> {
    use stderr_access_log::AccessLogFormat as StderrFormat;
    use stdout_access_log::AccessLogFormat as StdoutFormat;
    let mut log = None;
    for (index, one) in raw.iter().enumerate() {
        let path = format!("{path}access_log[{index}].");
        let Some(access_log::ConfigType::TypedConfig(any)) = &one.config_type else {
            return Err(input.invalid(path, "no configuration"));
        };
        let (file, format) = if any.type_url == FileAccessLog::type_url() {
            let file: FileAccessLog = read::message(input, &path, any)?;
            let format = match file.access_log_format {
                None => None,
                Some(AccessLogFormat::LogFormat(format)) => format.format,
                Some(AccessLogFormat::Format(text)) => Some(Format::TextFormat(text)),
                Some(AccessLogFormat::JsonFormat(fields) | AccessLogFormat::TypedJsonFormat(fields)) => {
                    Some(Format::JsonFormat(fields))
                }
            };
            (file.path, format)
        } else if any.type_url == StdoutAccessLog::type_url() {
            let stdout: StdoutAccessLog = read::message(input, &path, any)?;
            let format = stdout.access_log_format.map(|StdoutFormat::LogFormat(format)| format);
            ("/dev/stdout".to_owned(), format.and_then(|format: SubstitutionFormatString| format.format))
        } else if any.type_url == StderrAccessLog::type_url() {
            let stderr: StderrAccessLog = read::message(input, &path, any)?;
            let format = stderr.access_log_format.map(|StderrFormat::LogFormat(format)| format);
            ("/dev/stderr".to_owned(), format.and_then(|format: SubstitutionFormatString| format.format))
        } else {
            input.note(path, format!("nothing is logged to {}", any.type_url));
            continue;
        };
        if log.is_some() {
            input.note(path, "only the first file is written");
            continue;
        }
        input.ignore(one.filter.is_some(), &path, "filter");
        log = Some(formatted(input, &path, file, format)?);
    }
    Ok(log)
}

fn formatted(input: &In<'_>, path: &str, file: String, format: Option<Format>) -> Result<AccessLog, DecodeError> {
    let (format, json) = match format {
        None => (None, false),
        Some(Format::TextFormat(text)) => (Some(text), false),
        Some(Format::TextFormatSource(source)) => {
            let bytes = read::inline(&source).ok_or_else(|| input.invalid(path, "only inline formats are read"))?;
            (Some(String::from_utf8(bytes).map_err(|_| input.invalid(path, "the format is not UTF-8"))?), false)
        }
        Some(Format::JsonFormat(fields)) => {
            let ours = fields.fields.len() == ACCESS_LOG_FIELDS.len()
                && ACCESS_LOG_FIELDS.iter().all(|(name, operator)| read::text(&fields, name) == Some(operator));
            let text = serde_json::Value::Object(object(&fields, 0)).to_string();
            ((!ours).then_some(text), true)
        }
    };
    Ok(AccessLog { path: file, format: format.filter(|text| text != ACCESS_LOG_LINE), json })
}

/// Keys in order, so that equal formats read equal.
fn object(fields: &protobuf::Struct, depth: u8) -> serde_json::Map<String, serde_json::Value> {
    let mut keys: Vec<&String> = fields.fields.keys().collect();
    keys.sort_unstable();
    keys.into_iter().filter_map(|key| Some((key.clone(), value(fields.fields.get(key)?, depth)))).collect()
}

fn value(raw: &protobuf::Value, depth: u8) -> serde_json::Value {
    match &raw.kind {
        _ if depth > 16 => serde_json::Value::Null,
        None | Some(Kind::NullValue(_)) => serde_json::Value::Null,
        Some(Kind::BoolValue(value)) => serde_json::Value::Bool(*value),
        Some(Kind::NumberValue(number)) => {
            serde_json::Number::from_f64(*number).map_or(serde_json::Value::Null, serde_json::Value::Number)
        }
        Some(Kind::StringValue(text)) => serde_json::Value::String(text.clone()),
        Some(Kind::ListValue(list)) => list.values.iter().map(|one| value(one, depth + 1)).collect(),
        Some(Kind::StructValue(fields)) => serde_json::Value::Object(object(fields, depth + 1)),
    }
}
