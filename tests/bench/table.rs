//! How figures are printed.

/// One figure, the bare one beside it, and what the one is of the other.
pub(crate) struct Row {
    pub(crate) figure: String,
    pub(crate) value: String,
    pub(crate) baseline: String,
    pub(crate) ratio: String,
}

impl Row {
    pub(crate) fn new(
        figure: impl Into<String>,
        value: impl Into<String>,
        baseline: impl Into<String>,
        ratio: impl Into<String>,
    ) -> Self {
        Self {
            figure: figure.into(),
            value: value.into(),
            baseline: baseline.into(),
            ratio: ratio.into(),
        }
    }

    fn cells(&self) -> [&str; 4] {
        [&self.figure, &self.value, &self.baseline, &self.ratio]
    }
}

/// Prints a table under a title; `heads` are those of its columns.
pub(crate) fn print(title: &str, heads: [&str; 4], rows: &[Row]) {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row.cells()[column].chars().count())
            .chain([heads[column].len()])
            .max()
            .unwrap_or_default()
    };
    let widths = [0, 1, 2, 3].map(width);
    println!("\n{title}");
    let line = |cells: [&str; 4]| {
        println!(
            "  {:<a$}  {:>b$}  {:<c$}  {:>d$}",
            cells[0],
            cells[1],
            cells[2],
            cells[3],
            a = widths[0],
            b = widths[1],
            c = widths[2],
            d = widths[3]
        );
    };
    line(heads);
    line(
        widths
            .map(|width| "-".repeat(width))
            .each_ref()
            .map(|dashes| dashes.as_str()),
    );
    for row in rows {
        line(row.cells());
    }
}

/// `1234567.8` as `1,234,568`.
pub(crate) fn whole(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
