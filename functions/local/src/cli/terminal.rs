//! What reaches a terminal: words of strangers without what steers it, and colours only where there are eyes.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};

use console::{Style, Term};

/// Text of strangers for one line of a terminal: line ends and tabs become spaces, everything else that could steer the terminal, or
/// turn the direction of what stands beside it, becomes U+FFFD.
pub(crate) fn clean(text: &str) -> Cow<'_, str> {
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let plain = |c| match c {
        '\n' | '\r' | '\t' => ' ',
        c if steers(c) => '\u{fffd}',
        c => c,
    };
    Cow::Owned(text.chars().map(plain).collect())
}

/// JSON as it came, with what [`clean`] takes out written as escapes: the same JSON, and harmless.
///
/// Below U+007F only line ends and tabs can stand raw in a JSON text, between its values.
pub(crate) fn clean_json(json: &str) -> Cow<'_, str> {
    let is_escaped = |c: char| steers(c) && c >= '\u{7f}';
    if !json.contains(is_escaped) {
        return Cow::Borrowed(json);
    }
    let mut safe = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        match is_escaped(c) {
            // All of them are in the basic plane.
            true => drop(write!(safe, "\\u{:04x}", u32::from(c))),
            false => safe.push(c),
        }
    }
    Cow::Owned(safe)
}

fn steers(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{2028}' | '\u{2029}'
        )
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Colours, or none: decided once for a stream, then handed to what draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Paint(bool);

impl Paint {
    /// For standard output: a terminal that can, and nobody set NO_COLOR.
    pub(crate) fn of_stdout() -> Self {
        Self(console::colors_enabled())
    }

    #[cfg(test)]
    pub(crate) const fn none() -> Self {
        Self(false)
    }

    pub(crate) fn good(self, text: &str) -> String {
        self.with(Style::new().green(), text)
    }

    pub(crate) fn bad(self, text: &str) -> String {
        self.with(Style::new().red(), text)
    }

    pub(crate) fn moving(self, text: &str) -> String {
        self.with(Style::new().yellow(), text)
    }

    pub(crate) fn faint(self, text: &str) -> String {
        self.with(Style::new().dim(), text)
    }

    pub(crate) fn strong(self, text: &str) -> String {
        self.with(Style::new().bold(), text)
    }

    /// The status of a run, in its colour.
    pub(crate) fn status(self, status: &str) -> String {
        match status {
            "completed" | "ok" => self.good(status),
            "failed" | "error" | "lost" => self.bad(status),
            _ => self.moving(status),
        }
    }

    fn with(self, style: Style, text: &str) -> String {
        match self.0 {
            true => style.force_styling(true).apply_to(text).to_string(),
            false => text.to_owned(),
        }
    }
}

/// Writes a line to standard output; the reader sees it now.
///
/// # Errors
/// The reader is gone, or the disk behind it is full.
pub(crate) fn say(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Something that is not the answer: to standard error. That nobody reads it is no reason to end.
pub(crate) fn remark(line: &str) {
    let _ = writeln!(std::io::stderr(), "tailspan: {}", clean(line));
}

/// Whether a person looks at standard output, on something that can be drawn on.
pub(crate) fn is_drawable() -> bool {
    let term = std::env::var("TERM").unwrap_or_default();
    std::io::stdout().is_terminal() && !matches!(term.as_str(), "" | "dumb")
}

/// Rows in columns, the columns as wide as they must be. `width` cuts lines, for a terminal.
pub(crate) fn columns(rows: &[Vec<String>], width: Option<usize>) -> Vec<String> {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widest = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| console::measure_text_width(cell)).max()
    };
    let widths: Vec<usize> = (0..count).filter_map(widest).collect();
    let line = |row: &Vec<String>| {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            let pad = width.saturating_sub(console::measure_text_width(cell)) + 2;
            line.extend(std::iter::repeat_n(' ', pad));
        }
        let line = line.trim_end();
        match width {
            Some(width) => console::truncate_str(line, width, "…").into_owned(),
            None => line.to_owned(),
        }
    };
    rows.iter().map(line).collect()
}

/// The columns of the terminal that standard output is, if it is one.
pub(crate) fn width() -> Option<usize> {
    let (_, columns) = Term::stdout().size_checked()?;
    (columns > 0).then_some(usize::from(columns))
}

/// A screen of its own on the terminal, given back however this ends (but by SIGKILL).
///
/// What stood on the terminal comes back as it was, whatever the terminal does to long lines when it is made narrower.
pub(crate) struct Screen;

impl Screen {
    pub(crate) fn open() -> std::io::Result<Self> {
        let screen = Self;
        screen.write("\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J")?;
        Ok(screen)
    }

    /// Rows and columns as they are now; a terminal that does not know them is taken to be 24 by 80.
    pub(crate) fn size() -> (usize, usize) {
        match Term::stdout().size_checked() {
            Some((rows, columns)) if rows > 0 && columns > 0 => (rows.into(), columns.into()),
            _ => (24, 80),
        }
    }

    /// Shows these lines, cut at the edges, in one go.
    pub(crate) fn show(&self, lines: &[String]) -> std::io::Result<()> {
        let (rows, columns) = Self::size();
        // Terminals that know it hold their picture back between the two; the others ignore it.
        let mut picture = String::from("\x1b[?2026h\x1b[H");
        for (at, line) in lines.iter().take(rows).enumerate() {
            if at > 0 {
                picture.push_str("\r\n");
            }
            picture.push_str(&console::truncate_str(line, columns, "…"));
            picture.push_str("\x1b[K");
        }
        picture.push_str("\x1b[J\x1b[?2026l");
        self.write(&picture)
    }

    #[allow(clippy::unused_self, reason = "whoever writes holds the screen")]
    fn write(&self, text: &str) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.write("\x1b[?2026l\x1b[?7h\x1b[?25h\x1b[?1049l");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_strangers_do_not_steer_the_terminal() {
        assert_eq!(
            clean("a\x1b[2Jb\r\nc\u{9b}31m"),
            "a\u{fffd}[2Jb  c\u{fffd}31m"
        );
        assert_eq!(clean("\u{202e}gnp.exe"), "\u{fffd}gnp.exe");
        assert_eq!(clean("zażółć 東京 👩‍👩‍👧"), "zażółć 東京 👩‍👩‍👧");
        let json = "{\"a\":\"\u{9b}31m\u{7f}\u{202e}\"}";
        assert_eq!(clean_json(json), r#"{"a":"\u009b31m\u007f\u202e"}"#);
        let value = |json: &str| serde_json::from_str::<serde_json::Value>(json).unwrap();
        assert_eq!(value(&clean_json(json)), value(json));
    }

    #[test]
    fn columns_are_as_wide_as_their_widest() {
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect();
        let rows = [row(&["id", "status"]), row(&["東京", "ok"]), row(&["a"])];
        assert_eq!(columns(&rows, None), ["id    status", "東京  ok", "a"]);
        assert_eq!(columns(&rows, Some(5)), ["id  …", "東京…", "a"]);
    }
}
