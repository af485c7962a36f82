//! Ages as kubectl shows them: `45s`, `3m12s`, `20h`, `45d`.
//!
//! Never here: other columns. Called by all rows.

use serde_json::Value;

use crate::{clock, object};

/// Time since the object was made.
pub(super) fn of(value: &Value) -> String {
    since(object::text(value, "/metadata/creationTimestamp"))
}

/// Time since a moment given as text.
pub(crate) fn since(text: &str) -> String {
    match text.parse::<jiff::Timestamp>() {
        Ok(time) => show(clock::now().as_second() - time.as_second()),
        Err(_) => "<unknown>".to_owned(),
    }
}

/// Seconds as a short duration.
pub(super) fn show(seconds: i64) -> String {
    if seconds < -1 {
        return "<invalid>".to_owned();
    }
    let seconds = seconds.max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |large: i64, unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{large}{unit}") } else { format!("{large}{unit}{small}{small_unit}") }
    };
    match seconds {
        ..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::show;

    #[test]
    fn ages() {
        for (seconds, want) in [
            (45, "45s"),
            (119, "119s"),
            (120, "2m"),
            (192, "3m12s"),
            (2700, "45m"),
            (11_100, "3h5m"),
            (72_000, "20h"),
            (273_600, "3d4h"),
            (3_888_000, "45d"),
        ] {
            assert_eq!(show(seconds), want);
        }
    }
}
