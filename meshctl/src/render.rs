//! Prints tables as kubectl does: upper-case heads, columns three spaces apart, nothing cut.
//!
//! Never here: what a table says. Called by the verbs that list things.

use std::fmt::Write as _;

/// The text of a table.
pub(crate) fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = (0..heads.len())
        .map(|i| {
            rows.iter()
                .filter_map(|row| row.get(i))
                .map(|cell| cell.chars().count())
                .chain([heads[i].len()])
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    let head: Vec<String> = heads.iter().map(|head| (*head).to_owned()).collect();
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _infallible = write!(line, "{cell:<width$}   ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Prints text on standard output; a closed pipe is no error.
#[expect(clippy::print_stdout, reason = "standard output is what a command line is for")]
pub(crate) fn print(text: &str) {
    print!("{text}");
}

/// An age as kubectl prints it: `45s`, `3m12s`, `5h`, `2d`.
pub(crate) fn age(seconds: i64) -> String {
    match seconds {
        ..0 => "<unknown>".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 => format!("{}m{}s", seconds / 60, seconds % 60),
        600..10_800 => format!("{}m", seconds / 60),
        10_800..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = vec![vec!["a".to_owned(), "x".to_owned()], vec!["longer".to_owned(), "y".to_owned()]];
        assert_eq!(table(&["NAME", "B"], &rows), "NAME     B\na        x\nlonger   y\n");
    }

    #[test]
    fn ages_get_coarser() {
        assert_eq!([age(5), age(130), age(700), age(20_000), age(200_000)], ["5s", "2m10s", "11m", "5h", "2d"]);
    }
}
