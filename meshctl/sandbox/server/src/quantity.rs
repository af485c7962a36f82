//! Quantities: `500m`, `1Gi`, `2e3`, in the one form the API stores.
//!
//! Never here: what is measured. Called by strict decoding and by validation.

use serde_json::Value;

/// The text is no quantity.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a quantity")]
pub(crate) struct NotQuantity;

const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// Rewrites a quantity (text or number) in canonical form.
pub(crate) fn canonical(value: &mut Value) -> Result<(), NotQuantity> {
    let text = match &*value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return Err(NotQuantity),
    };
    *value = Value::String(format(&text)?);
    Ok(())
}

/// The value in billionths.
pub(crate) fn nanos(text: &str) -> Result<i128, NotQuantity> {
    parse(text).map(|(nanos, _)| nanos)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Decimal,
    Binary,
    Exponent,
}

fn parse(text: &str) -> Result<(i128, Form), NotQuantity> {
    let digits_end = text
        .char_indices()
        .find(|(at, c)| !(c.is_ascii_digit() || *c == '.' || (*at == 0 && (*c == '-' || *c == '+'))))
        .map_or(text.len(), |(at, _)| at);
    let (number, suffix) = text.split_at(digits_end);
    let (negative, number) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return Err(NotQuantity);
    }
    let digits: i128 = format!("{whole}{fraction}").parse().map_err(|_| NotQuantity)?;
    let places = i32::try_from(fraction.len()).map_err(|_| NotQuantity)?;
    let (form, power, factor) = if let Some((_, power)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        (Form::Decimal, *power, 1)
    } else if let Some(index) = BINARY.iter().position(|name| *name == suffix) {
        let index = u32::try_from(index).map_err(|_| NotQuantity)?;
        (Form::Binary, 0, 1024_i128.pow(index))
    } else if let Some(power) = suffix.strip_prefix(['e', 'E']).and_then(|power| power.parse::<i32>().ok()) {
        (Form::Exponent, power, 1)
    } else {
        return Err(NotQuantity);
    };
    let exponent = power - places + 9;
    let scaled = digits.checked_mul(factor).ok_or(NotQuantity)?;
    let nanos = if exponent >= 0 {
        let power = 10_i128.checked_pow(exponent.unsigned_abs()).ok_or(NotQuantity)?;
        scaled.checked_mul(power).ok_or(NotQuantity)?
    } else {
        let power = 10_i128.checked_pow(exponent.unsigned_abs()).ok_or(NotQuantity)?;
        // Smaller than a billionth rounds up.
        (scaled + power - 1).div_euclid(power)
    };
    Ok((if negative { -nanos } else { nanos }, form))
}

fn format(text: &str) -> Result<String, NotQuantity> {
    let (nanos, form) = parse(text)?;
    if nanos == 0 {
        return Ok("0".to_owned());
    }
    const ONE: i128 = 1_000_000_000;
    if form == Form::Binary && nanos % ONE == 0 && (nanos / ONE).abs() >= 1024 {
        let mut value = nanos / ONE;
        let mut index = 0;
        while value % 1024 == 0 && index + 1 < BINARY.len() {
            value /= 1024;
            index += 1;
        }
        return Ok(format!("{value}{}", BINARY[index]));
    }
    let mut value = nanos;
    let mut index = 0;
    while value % 1000 == 0 && index + 1 < DECIMAL.len() {
        value /= 1000;
        index += 1;
    }
    let (suffix, power) = DECIMAL[index];
    if form == Form::Exponent && power != 0 {
        return Ok(format!("{value}e{power}"));
    }
    Ok(format!("{value}{suffix}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_forms() {
        for (input, want) in [
            ("0.5", "500m"),
            ("1000m", "1"),
            ("1024Mi", "1Gi"),
            ("100Mi", "100Mi"),
            ("1.5Gi", "1536Mi"),
            ("2000", "2k"),
            ("1e3", "1e3"),
            ("0", "0"),
            ("-1", "-1"),
            ("100m", "100m"),
            ("512", "512"),
            ("1500M", "1500M"),
            ("0.1Ki", "102400m"),
        ] {
            assert_eq!(format(input).unwrap(), want, "{input}");
        }
        for bad in ["", "abc", "1Zi", "1.2.3", "Gi"] {
            assert!(format(bad).is_err(), "{bad}");
        }
    }
}
