//! Prints tables as kubectl does: upper-case heads, columns three spaces apart, nothing cut.
//!
//! Never here: what a table says. Called by the verbs that list things.

use std::fmt::Write as _;
use std::io;

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

/// Prints text on standard output. A reader that has closed it has seen enough; that is no failure.
pub(crate) fn print(text: &str) -> io::Result<()> {
    write(&mut io::stdout().lock(), text)
}

fn write(to: &mut impl io::Write, text: &str) -> io::Result<()> {
    match to.write_all(text.as_bytes()).and_then(|()| to.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
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

    struct Refuses(io::ErrorKind);

    impl io::Write for Refuses {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_pipe_is_no_failure_and_a_full_disk_is() {
        assert!(write(&mut Refuses(io::ErrorKind::BrokenPipe), "a").is_ok());
        assert!(write(&mut Refuses(io::ErrorKind::StorageFull), "a").is_err());
    }

    #[test]
    fn ages_get_coarser() {
        assert_eq!([age(5), age(130), age(700), age(20_000), age(200_000)], ["5s", "2m10s", "11m", "5h", "2d"]);
    }
}
